"""The cffi binding to libxenvchan, in three layers: declarations, raw, channel."""
