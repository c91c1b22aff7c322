"""The labelled set: runs whose class is known, on which the verdict is chosen and scored."""
