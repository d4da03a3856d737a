"Every test runs on the embedded samples, with a picture backend that needs no screen."
import os

os.environ.setdefault('MPLBACKEND', 'agg')
for name in 'MINIDL_DATA', 'MINIDL_MIRROR': os.environ.pop(name, None)
