"""The run folder: schema, manifest, writer, reader, and readers of other tools' files."""
