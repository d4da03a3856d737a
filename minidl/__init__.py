"A deep learning library that you build yourself, one notebook at a time, and then keep using."
__version__ = '0.1.0'
