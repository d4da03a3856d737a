"""Images a second: JPEG files -> RandomResizedCrop(128, scale 0.35 to 1), flip, batches of 64, two workers, normalized floats.

    python bench/images.py [--rounds N] [--passes N]

Both sides end with the same thing, a normalized float32 batch in the main process, from the same files in a random
order, by workers that were started before. What is timed is a pass over all files. Passes take turns, and the median of
their paired ratios is what counts: a busy machine slows all of them.

- minidl: the data block; workers send bytes, the main process makes floats of a batch and normalizes it.
- torchvision, floats: `ImageFolder` and `DataLoader` with `ToTensor` and `Normalize` in the workers, as in its own
  examples.
- torchvision, bytes: `PILToTensor` in the workers, the rest on the batch, as minidl does it. The harder to beat.
- bare Pillow: one process, no batches, no chance: open, decode, resize to 128.

torchvision is used where it is installed (`.venv-bench`, see bench/peers.txt). Every round also lists 50,000 empty files."""
import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader

from minidl.augment import RandomResizedCrop, norm_imagenette
from minidl.data import ImageDataLoaders, RandomFlip, get_files
from minidl.datasets import get_data, is_sample

SIZE, BS, WORKERS, LISTED = 128, 64, 2, 50_000


class Timed:
    "Passes over a loader, and how long each took."
    def __init__(self, loader, finish=lambda xb: xb): self.loader, self.finish, self.times = loader, finish, []

    def __call__(self):
        n, start = 0, time.perf_counter()
        for xb, yb in self.loader:
            xb = self.finish(xb)
            n += len(xb)
        self.times.append(time.perf_counter() - start)
        assert xb.dtype == torch.float32 and xb.shape[1:] == (3, SIZE, SIZE) and xb.min() < -0.5, xb.dtype
        return n


def ours(path):
    tfms = [RandomResizedCrop(SIZE, scale=(0.35, 1)), RandomFlip()]
    dls = ImageDataLoaders.from_folder(path, tfms=tfms, bs=BS, num_workers=WORKERS, batch_tfms=[norm_imagenette])
    return Timed(dls.train)


def theirs(path, bytes_):
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder
    mean, std = norm_imagenette.mean, norm_imagenette.std
    last = [T.PILToTensor()] if bytes_ else [T.ToTensor(), T.Normalize(mean, std)]
    ds = ImageFolder(path/'train', T.Compose([T.RandomResizedCrop(SIZE, scale=(0.35, 1)), T.RandomHorizontalFlip(), *last]))
    dl = DataLoader(ds, BS, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    m, s = (torch.tensor(v)[:, None, None] for v in (mean, std))
    return Timed(dl, (lambda xb: (xb.float().div_(255) - m)/s) if bytes_ else (lambda xb: xb))


class Bare:
    "Decode and resize, file by file, in this process."
    def __init__(self, path): self.files, self.times = get_files(path/'train', '.jpeg'), []

    def __call__(self):
        start = time.perf_counter()
        for f in self.files: Image.open(f).convert('RGB').resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        self.times.append(time.perf_counter() - start)
        return len(self.files)


def pipelines(path, rounds, passes=1):
    "Median of the paired ratios of minidl's times to the others', by name, and images a second."
    runs = {'minidl': ours(path), 'bare Pillow': Bare(path)}
    try: runs |= {'torchvision, floats': theirs(path, False), 'torchvision, bytes': theirs(path, True)}
    except (ImportError, RuntimeError) as e: print(f'without torchvision ({e}): see bench/peers.txt')
    names, n = list(runs), 0
    for run in runs.values():
        n = run()           # starts the workers, fills the disk's cache
        run.times.clear()
    for i in range(rounds):
        for name in names[i % len(names):] + names[:i % len(names)]: runs[name]()
    for name, run in runs.items(): print(f'{name:20} {n/statistics.median(run.times):6.0f} images/s')
    mine = runs.pop('minidl').times
    return {name: statistics.median(a/b for a, b in zip(mine, run.times)) for name, run in runs.items()}


def listing(rounds=3):
    "Seconds that `get_files` takes for 50,000 files in 100 folders, the quickest of `rounds`."
    with tempfile.TemporaryDirectory() as folder:
        for i in range(100):
            (Path(folder)/f'{i:03}').mkdir()
            for j in range(LISTED//100): open(f'{folder}/{i:03}/{j:05}.jpg', 'w').close()
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            found = get_files(folder, '.jpg')
            times.append(time.perf_counter() - start)
        assert len(found) == LISTED
    return min(times)


def rows(rounds=10):
    "(what, ratio or seconds, the most it may be or None)"
    torch.set_num_threads(1)
    path = get_data('imagenette')
    print(f"files: {'the sample (drawn pictures)' if is_sample() else 'MINIDL_DATA=' + os.environ['MINIDL_DATA']}, "
          f'{Image.open(get_files(path/"train", ".jpeg")[0]).size} pixels the first')
    res = [(f'image pipeline, {WORKERS} workers, minidl / {name}', ratio, 1.0 if 'torchvision' in name else None)
           for name, ratio in pipelines(path, rounds).items()]
    return res + [('listing 50,000 files with get_files, seconds', listing(), 1.5)]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=10)
    for what, value, most in rows(parser.parse_args().rounds):
        print(f'{what:60} {value:.3f}' + (f'  (at most {most})' if most else '  (for reference)'))
