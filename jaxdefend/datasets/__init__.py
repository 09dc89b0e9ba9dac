"""Sets of images out of files, folders and arrays, and the synthetic faces."""
