"""The folder of a run: what is written, and read again. Imports nothing by itself."""
