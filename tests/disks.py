"A disk that is full."
import resource
from contextlib import contextmanager


@contextmanager
def no_file_over(n_bytes):
    "No file may grow beyond `n_bytes`: writing fails in the midst of it, as on a full disk."
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
