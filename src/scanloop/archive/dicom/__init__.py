"""DICOM objects: what their headers say, what their frames show, and a process of its own that reads them."""
