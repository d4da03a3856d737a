"Tests run on the embedded samples, with a picture backend that needs no screen, and on the same examples in each run."
import os

from hypothesis import settings

os.environ.setdefault('MPLBACKEND', 'agg')
for name in 'MINIDL_DATA', 'MINIDL_MIRROR': os.environ.pop(name, None)

settings.register_profile('minidl', derandomize=True, deadline=None)
settings.load_profile('minidl')
