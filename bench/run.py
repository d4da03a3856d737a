"One table of every number to hold: what was measured, how it compares with plain PyTorch, and what it should reach."
import importlib
import os
import platform
import sys
from pathlib import Path

import torch

import minidl

sys.path.insert(0, str(Path(__file__).parent))
PARTS = ['learner', 'optim', 'images', 'text']


def machine():
    model = next((l.split(':')[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name')), platform.processor()) \
        if os.path.exists('/proc/cpuinfo') else platform.processor()
    gpu = f', {torch.cuda.get_device_name()}' if torch.cuda.is_available() else ', no GPU'
    return f'{platform.system()} {platform.machine()}, {model}, {os.cpu_count()} cores{gpu}'


def main():
    print(f'{machine()}\nPython {platform.python_version()}, torch {torch.__version__}, minidl {minidl.__version__}\n')
    print(f"{'what (ratio of times, smaller is better)':66} {'ratio':>7}  {'at most':>7}")
    for part in sys.argv[1:] or PARTS:
        for what, value, most in importlib.import_module(part).rows():
            verdict = '' if most is None or value <= most else '   missed'
            print(f"{what:66} {value:7.3f}  {'' if most is None else most:>7}{verdict}", flush=True)


if __name__ == '__main__': main()
