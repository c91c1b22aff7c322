"""What ONNX Runtime's own tools make of a model before it runs: smaller types, fixed shapes, its optimised graph.

The parent asks `cached.convert`; the tools run in a child process (`__main__`), one file per kind of tool.
"""
