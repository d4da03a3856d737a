#!/usr/bin/env python
"""Make the embedded samples from a seed, byte for byte the same on every run.

    python data/make_samples.py [--out DIR] [--only mnist,imagenette]

Needs numpy, pillow and matplotlib (for its fonts), nothing else.
The bytes are promised for the versions in constraints.txt and for zlib (zlib-ng packs the same data into other bytes).
"""
import argparse, gzip, hashlib, io, sys, tarfile, tempfile, time
from pathlib import Path

import numpy as np

MTIME = 1767225600  # January 1st, 2026: one time for every file
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # the drawing modules lie beside this file and are no package

import draw_digits, draw_garments, draw_objects, draw_pets, text_samples  # noqa: E402


# Writing what does not change from run to run

def write_gz(path, data):
    "gzip without the time and the name that gzip normally records."
    with open(path, 'wb') as f, gzip.GzipFile('', 'wb', 9, f, mtime=0) as z: z.write(data)


def write_idx(path, a):
    "An array of bytes in the IDX format of MNIST: type and rank, then the sizes, big-endian, then the bytes."
    write_gz(path, bytes([0, 0, 8, a.ndim]) + np.array(a.shape, '>i4').tobytes() + a.tobytes())


def write_tgz(path, folder):
    "Pack `folder` under its own name: sorted, and with the same owner, mode and time for every file."
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode='w', format=tarfile.USTAR_FORMAT) as tar:
        for p in sorted([folder, *folder.rglob('*')], key=lambda p: p.relative_to(folder.parent).as_posix()):
            info = tarfile.TarInfo(p.relative_to(folder.parent).as_posix())
            info.mtime = MTIME
            if p.is_dir():
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            else:
                info.size, info.mode = p.stat().st_size, 0o644
                with p.open('rb') as f: tar.addfile(info, f)
    write_gz(path, buf.getvalue())


def write_sums(folder):
    "SHA256SUMS over every other file of the folder, as sha256sum writes and checks it."
    files = sorted(p for p in folder.rglob('*') if p.is_file() and p.name != 'SHA256SUMS')
    lines = [f'{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n' for p in files]
    (folder/'SHA256SUMS').write_bytes(''.join(lines).encode())


# The samples

def idx_files(folder, draw, n_train, n_test):
    "Images and labels in the four files of MNIST."
    folder.mkdir(exist_ok=True)
    for part, (name, n) in enumerate((('train', n_train), ('t10k', n_test))):
        images, labels = draw(n, part)
        write_idx(folder/f'{name}-images-idx3-ubyte.gz', images)
        write_idx(folder/f'{name}-labels-idx1-ubyte.gz', labels)


def archive(path, make, *args):
    "`make(folder)` writes a folder with the archive's name into the one it is given; pack it."
    with tempfile.TemporaryDirectory() as d:
        make(Path(d), *args)
        write_tgz(path, Path(d)/path.stem)


MAKERS = {
    'mnist': lambda out: idx_files(out/'mnist', draw_digits.digits, 6000, 2000),
    'fashion_mnist': lambda out: idx_files(out/'fashion_mnist', draw_garments.garments, 6000, 1000),
    'imagenette': lambda out: archive(out/'imagenette.tgz', draw_objects.make_imagenette),
    'pets': lambda out: archive(out/'pets.tgz', draw_pets.make_pets),
    'imdb': lambda out: archive(out/'imdb.tgz', text_samples.make_imdb, 5),
    'wikitext': lambda out: archive(out/'wikitext.tgz', text_samples.make_wikitext, 6)}


def make_samples(
    out:Path,        # folder to write into, made if missing
    only:list=None,  # names of the samples to make; all by default
):
    "Make the samples and the list of their digests."
    out.mkdir(parents=True, exist_ok=True)
    for name in only or MAKERS:
        start = time.perf_counter()
        MAKERS[name](out)
        size = sum(p.stat().st_size for p in [out/f'{name}.tgz', *(out/name).glob('*')] if p.is_file())
        print(f'{name:14} {size/1e6:5.2f} MB {time.perf_counter() - start:6.1f} s', flush=True)
    write_sums(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=HERE/'samples', help='folder to write into')
    parser.add_argument('--only', type=lambda s: s.split(','), help=f'some of {",".join(MAKERS)}')
    args = parser.parse_args()
    if unknown := set(args.only or []) - set(MAKERS):
        parser.error(f'no sample is called {", ".join(sorted(unknown))}; there are {", ".join(MAKERS)}')
    make_samples(args.out, args.only)


if __name__ == '__main__': main()
