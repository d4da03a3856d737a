"""Run chapters top to bottom, each from a fresh kernel, and leave them as HTML under _run/.

    python tools/run_chapters.py            every chapter
    python tools/run_chapters.py 03 04      some of them
"""
import argparse
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT/'_run'
TIMEOUT = 3600   # seconds a cell: full data on a small machine takes long


def code_cells(nb): return [c for c in nb.cells if c.cell_type == 'code']


def missing_data(nb):
    "Data sets that the chapter takes without asking `has_data` first, and that are not there."
    from minidl.datasets import SOURCES, has_data, is_sample
    if is_sample(): return []
    source = '\n'.join(c.source for c in code_cells(nb))
    taken = re.findall(r"get_data\('(\w+)'\)", source)
    asked = re.findall(r"has_data\('(\w+)'\)", source)
    return sorted(n for n in set(taken) - set(asked) if n in SOURCES and not has_data(n))


def run(path):
    "Run one chapter; the line to print, and whether it is as it should be."
    nb = nbformat.read(path, as_version=4)
    if missing := missing_data(nb): return f"{path.stem:32} skipped: no {', '.join(missing)} in MINIDL_DATA", True
    start = time.perf_counter()
    client = NotebookClient(nb, timeout=TIMEOUT, kernel_name='python3', extra_arguments=['--log-level=ERROR'],
                            resources={'metadata': {'path': str(path.parent)}})
    error = None
    try: client.execute()
    except (CellExecutionError, CellTimeoutError) as e: error = str(e)
    except DeadKernelError: error = 'The kernel died (out of memory?)'
    seconds = time.perf_counter() - start
    html, _ = HTMLExporter().from_notebook_node(nb)
    (OUT/f'{path.stem}.html').write_text(html, encoding='utf-8')
    if error is None: return f'{path.stem:32} {seconds:6.1f} s  ok', True
    return f'{path.stem:32} {seconds:6.1f} s  FAILED in this cell:\n\n{error}\n', False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('chapters', nargs='*', help='numbers or names, such as 03 or 07a_batchnorm; none: all')
    parser.add_argument('--jobs', type=int, default=min(2, os.cpu_count() or 1), help='chapters at once (default: 2)')
    args = parser.parse_args()

    every = sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))
    chosen = [p for p in every if not args.chapters or any(c in (p.stem, p.stem.split('_')[0]) for c in args.chapters)]
    known = {p.stem for p in every} | {p.stem.split('_')[0] for p in every}
    if unknown := [c for c in args.chapters if c not in known]:
        sys.exit(f"No such chapter: {', '.join(unknown)}. There are: {', '.join(p.stem.split('_')[0] for p in every)}")

    if args.jobs > 1: os.environ.setdefault('OMP_NUM_THREADS', '1')
    if (setting := os.environ.get('MINIDL_DATA')) not in (None, '', 'sample', 'full'):
        if not Path(setting).is_dir(): sys.exit(f'MINIDL_DATA is sample, full or a folder, and there is no folder {setting}.')
        os.environ['MINIDL_DATA'] = str(Path(setting).resolve())   # the kernels start in nbs/
    OUT.mkdir(exist_ok=True)
    start, failed, n_skipped = time.perf_counter(), [], 0
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = [(p, pool.submit(run, p)) for p in chosen]
        try:
            for path, future in futures:
                line, ok = future.result()
                print(line, flush=True)
                if not ok: failed.append(path.stem)
                n_skipped += 'skipped:' in line
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            os._exit(130)   # the kernels notice that their parent is gone
    skipped = f', {n_skipped} skipped' if n_skipped else ''
    print(f'{len(chosen) - n_skipped} chapters in {time.perf_counter() - start:.0f} s{skipped}; read them in '
          f'{OUT.relative_to(ROOT)}/')
    if failed: sys.exit(f"failed: {', '.join(failed)}")


if __name__ == '__main__': main()
