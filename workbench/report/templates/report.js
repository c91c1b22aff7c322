"use strict";
// Unpacks plotly and the figures after the text is painted, and draws them one by one.
(async () => {
  const places = [...document.querySelectorAll("[data-figure]")];
  const say = (text) => places.forEach((place) => { place.textContent = text; });
  if (!("DecompressionStream" in window)) {
    say("This browser is too old to unpack the figures. All numbers are in the tables.");
    return;
  }
  const unpacked = async (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const nextFrame = () => new Promise((done) => { setTimeout(done, 0); });
  const config = { responsive: true, displaylogo: false, plotlyServerURL: "" };

  await nextFrame();
  const script = document.createElement("script");
  script.textContent = await unpacked("plotly-js");
  document.head.append(script);
  const figures = JSON.parse(await unpacked("figures"));
  for (const place of places) {
    const figure = figures[place.dataset.figure];
    await nextFrame();
    await Plotly.newPlot(place, figure.data, figure.layout, config);
  }
  // Paper is narrower than most screens, and a drawn figure does not follow by itself.
  const folded = document.querySelectorAll("details:not([open])");
  window.addEventListener("beforeprint", () => {
    folded.forEach((each) => { each.open = true; });
    places.forEach((place) => { Plotly.relayout(place, { autosize: false, width: 680 }); });
  });
  window.addEventListener("afterprint", () => {
    folded.forEach((each) => { each.open = false; });
    places.forEach((place) => { Plotly.relayout(place, { autosize: true, width: null }); });
  });
  document.documentElement.dataset.figures = "drawn";
})();
