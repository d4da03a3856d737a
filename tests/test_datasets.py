"Where data comes from, and everything that can happen to it on its way (chapter 00)."
import errno
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from minidl import datasets
from minidl.datasets import (Source, build_once, download, extract, get_data, has_data, load_mnist, read_idx,
                             show_image, show_images)

MD5 = lambda b: hashlib.md5(b).hexdigest()
BLOB = bytes(i * i % 251 for i in range(300_000))


def tgz(folder, files, links=()):
    "An archive in memory, with `files` (name -> bytes) under `folder`."
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as t:
        for name, content in files.items():
            info = tarfile.TarInfo(f'{folder}/{name}' if folder else name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            t.addfile(info)
    return out.getvalue()


class Server:
    "Serves `files` on the loopback address; `mode` says how it misbehaves."
    def __init__(self, files, mode='good', cut=100_000):
        self.files, self.mode, self.cut, self.requests = files, mode, cut, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self): outer.answer(self)
            def log_message(self, *args): pass
        self.httpd = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.httpd.daemon_threads = True
        self.released = threading.Event()
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True)

    def __enter__(self):
        self.thread.start()
        self.url = f'http://127.0.0.1:{self.httpd.server_port}/'
        return self

    def __exit__(self, *args):
        self.released.set()
        self.httpd.shutdown()
        self.httpd.server_close()

    def answer(self, h):
        rng = h.headers.get('Range')
        self.requests.append((h.path, rng))
        if h.path[1:] not in self.files: return h.send_error(404)
        if self.mode.isdigit() and len(self.requests) < 3: return h.send_error(int(self.mode))
        body = self.files[h.path[1:]]
        start = int(rng[6:-1]) if rng and self.mode != 'no_range' else 0
        if start >= len(body): return h.send_error(416)
        h.send_response(206 if start else 200)
        if start: h.send_header('Content-Range', f'bytes {start}-{len(body)-1}/{len(body)}')
        h.send_header('Content-Length', str(len(body) - start))
        h.end_headers()
        first = len(self.requests) == 1
        if self.mode == 'stalled':
            h.wfile.write(body[:1000])
            h.wfile.flush()
            return self.released.wait(20)
        h.wfile.write(body[start:self.cut] if first and self.mode in ('cut', 'no_range') else body[start:])


def fetch(server, dest, **kw): return download(server.url + 'blob', dest, len(BLOB), MD5(BLOB), wait=0.01, **kw)


def test_a_whole_file_arrives_and_nothing_else_is_left(tmp_path):
    with Server(dict(blob=BLOB)) as s: fetch(s, tmp_path/'blob')
    assert (tmp_path/'blob').read_bytes() == BLOB
    assert os.listdir(tmp_path) == ['blob']


def test_a_cut_off_download_is_resumed_with_a_range_request(tmp_path):
    with Server(dict(blob=BLOB), 'cut') as s:
        fetch(s, tmp_path/'blob')
        assert [r for _, r in s.requests] == [None, 'bytes=100000-']
    assert (tmp_path/'blob').read_bytes() == BLOB


def test_what_an_earlier_process_left_is_resumed(tmp_path):
    (tmp_path/'blob.part').write_bytes(BLOB[:1234])
    with Server(dict(blob=BLOB)) as s:
        fetch(s, tmp_path/'blob')
        assert s.requests[0][1] == 'bytes=1234-'
    assert (tmp_path/'blob').read_bytes() == BLOB


def test_the_folder_of_a_download_need_not_exist(tmp_path):
    with Server(dict(blob=BLOB)) as s: fetch(s, tmp_path/'new'/'folder'/'blob')
    assert (tmp_path/'new'/'folder'/'blob').read_bytes() == BLOB


def test_a_server_that_ignores_range_is_read_from_the_start(tmp_path):
    with Server(dict(blob=BLOB), 'no_range') as s: fetch(s, tmp_path/'blob')
    assert (tmp_path/'blob').read_bytes() == BLOB


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path):
    (tmp_path/'blob.part').write_bytes(BLOB + b'more')
    with Server(dict(blob=BLOB)) as s: fetch(s, tmp_path/'blob')
    assert (tmp_path/'blob').read_bytes() == BLOB


def test_a_wrong_digest_names_both_and_leaves_nothing(tmp_path):
    forged = BLOB[:-1] + b'!'
    with Server(dict(blob=forged)) as s, pytest.raises(ValueError) as e: fetch(s, tmp_path/'blob')
    assert MD5(BLOB) in str(e.value) and MD5(forged) in str(e.value)
    assert os.listdir(tmp_path) == []


def test_a_wrong_size_is_named(tmp_path):
    with Server(dict(blob=BLOB[:-5])) as s, pytest.raises(ValueError, match='299,995 bytes instead of 300,000'):
        fetch(s, tmp_path/'blob')
    assert os.listdir(tmp_path) == []


def test_404_is_not_tried_again_and_says_what_to_do_offline(tmp_path):
    with Server({}) as s, pytest.raises(FileNotFoundError, match='404.*MINIDL_MIRROR'): fetch(s, tmp_path/'blob')
    assert len(s.requests) == 1 and os.listdir(tmp_path) == []


@pytest.mark.parametrize('code', ['503', '429', '408'])
def test_a_server_in_trouble_is_asked_again(tmp_path, code):
    with Server(dict(blob=BLOB), code) as s: fetch(s, tmp_path/'blob')
    assert len(s.requests) == 3 and (tmp_path/'blob').read_bytes() == BLOB


def test_a_stalled_server_times_out_with_pauses_that_grow_and_ends_in_a_sentence(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(datasets.time, 'sleep', pauses.append)
    with Server(dict(blob=BLOB), 'stalled') as s:
        with pytest.raises(ConnectionError, match='given up after 3 attempts.*leave MINIDL_DATA unset'):
            download(s.url + 'blob', tmp_path/'blob', len(BLOB), MD5(BLOB), timeout=0.2, tries=3, wait=1)
    assert pauses == [1, 2] and not (tmp_path/'blob').exists()


def test_nobody_listening_ends_in_a_sentence(tmp_path):
    with Server({}) as s: url = s.url
    with pytest.raises(ConnectionError, match='Without a network'):
        download(url + 'blob', tmp_path/'blob', tries=2, wait=0.01)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    real = open

    def full(path, mode='r', *args, **kw):
        f = real(path, mode, *args, **kw)
        if str(path).endswith('.part') and mode in ('wb', 'ab'):
            def write(b): raise OSError(errno.ENOSPC, 'No space left on device')
            class Full:
                __enter__ = lambda self: self
                def __exit__(self, *a): f.close()
            Full.write = staticmethod(write)
            return Full()
        return f
    monkeypatch.setattr('builtins.open', full)
    with Server(dict(blob=BLOB)) as s, pytest.raises(OSError, match='the disk is full.*MINIDL_CACHE'):
        fetch(s, tmp_path/'blob')
    assert os.listdir(tmp_path) == []


def test_a_full_disk_while_extracting_leaves_nothing_half_written(tmp_path, monkeypatch):
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/'mine.tgz').write_bytes(tgz('mine', {'a.txt': b'1'}))
    monkeypatch.setenv('MINIDL_DATA', str(tmp_path/'in'))
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'cache'))
    def no_room(*args, **kw): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(tarfile.TarFile, 'makefile', no_room)
    with pytest.raises(OSError, match='the disk is full'): get_data('mine')
    assert [p for p in (tmp_path/'cache').rglob('*') if p.suffix != '.lock' and p.name != 'extracted'] == []


@pytest.mark.parametrize('name', ['../outside.txt', '/absolute.txt', 'a/../../outside.txt'])
def test_an_archive_that_leads_outside_is_refused(tmp_path, name):
    (tmp_path/'a.tgz').write_bytes(tgz('', {name: b'x'}))
    (tmp_path/'in').mkdir()
    with pytest.raises(ValueError, match='not safe to extract'): extract(tmp_path/'a.tgz', tmp_path/'in')
    assert not (tmp_path/'outside.txt').exists() and not Path('/absolute.txt').exists()


@pytest.mark.parametrize('target', ['../../outside', '/etc/passwd'])
def test_an_archive_with_a_link_outside_is_refused(tmp_path, target):
    (tmp_path/'a.tgz').write_bytes(tgz('', {}, [('link', target)]))
    (tmp_path/'in').mkdir()
    with pytest.raises(ValueError, match='not safe to extract'): extract(tmp_path/'a.tgz', tmp_path/'in')
    assert os.listdir(tmp_path/'in') == []


@pytest.mark.parametrize('damage', [lambda b: b[:len(b)//2], lambda b: b'no archive at all', lambda b: b''])
def test_a_cut_off_archive_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch, damage):
    (tmp_path/'mine.tgz').write_bytes(damage(tgz('mine', {'a.bin': os.urandom(50_000)})))
    monkeypatch.setenv('MINIDL_DATA', str(tmp_path))
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'cache'))
    with pytest.raises(ValueError, match='cut off or no archive'): get_data('mine')
    assert [p for p in (tmp_path/'cache').rglob('*') if p.suffix != '.lock' and p.name != 'extracted'] == []


ARCHIVE = tgz('toy-160', {'train/a/1.jpg': b'j', 'val/a/2.jpg': b'k'})


@pytest.fixture
def toy(monkeypatch, tmp_path):
    "A public data set called toy, whose server each test starts."
    monkeypatch.setitem(datasets.SOURCES, 'toy',
                        Source('unset', {'toy-160.tgz': (len(ARCHIVE), MD5(ARCHIVE))}, 'images', ''))
    monkeypatch.setenv('MINIDL_DATA', 'full')
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'cache'))
    return tmp_path/'cache'


def test_full_downloads_once_through_a_mirror(toy, monkeypatch, capsys):
    with Server({'pub/toy-160.tgz': ARCHIVE}) as s:
        monkeypatch.setenv('MINIDL_MIRROR', s.url + 'pub')
        path = get_data('toy')
        assert get_data('toy') == path and len(s.requests) == 1
    assert (path/'train'/'a'/'1.jpg').read_bytes() == b'j'   # the archive's own top folder is gone
    assert '2 images' in capsys.readouterr().out
    assert sorted(p.name for p in toy.rglob('*') if p.is_file() and p.suffix != '.lock') == ['1.jpg', '2.jpg']


def test_mnist_comes_as_four_files_from_a_folder_of_the_mirror(toy, monkeypatch):
    files = {f: f.encode() for f in datasets.SOURCES['mnist'].files}
    monkeypatch.setitem(datasets.SOURCES, 'toy',
                        Source('unset', {f: (len(b), MD5(b)) for f, b in files.items()}, 'reviews', ''))
    with Server({f'toy/{f}': b for f, b in files.items()}) as s:
        monkeypatch.setenv('MINIDL_MIRROR', s.url)
        path = get_data('toy')
    assert {p.name: p.read_bytes() for p in path.iterdir()} == files


def test_two_processes_asking_at_once_download_once(toy):
    code = ("import sys; from minidl import datasets; from minidl.datasets import Source; "
            f"files = {{'toy-160.tgz': ({len(ARCHIVE)}, '{MD5(ARCHIVE)}')}}; "
            "datasets.SOURCES['toy'] = Source('unset', files, 'images', ''); "
            "p = datasets.get_data('toy'); assert (p/'train'/'a'/'1.jpg').exists()")
    with Server({'toy-160.tgz': ARCHIVE}) as s:
        env = os.environ | dict(MINIDL_MIRROR=s.url, OMP_NUM_THREADS='1')
        both = [subprocess.Popen([sys.executable, '-c', code], env=env, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT) for _ in range(2)]
        out = [p.communicate(timeout=100)[0].decode() for p in both]
        assert [p.returncode for p in both] == [0, 0], out
        assert len(s.requests) == 1


def test_wikitext_rows_become_text(tmp_path):
    (tmp_path/'train.csv').write_text('" \n = A = \n one , ""two"" \n"\n" \n = B = \n three \n"\n')
    datasets._csv_to_text(tmp_path)
    assert (tmp_path/'train.txt').read_text() == ' \n = A = \n one , "two" \n\n \n = B = \n three \n\n'


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path/'set.part').mkdir()
    (tmp_path/'set.part'/'half').write_text('x')
    def make(folder):
        assert list(folder.iterdir()) == []
        (folder/'whole').write_text('y')
        return folder
    assert [p.name for p in build_once(tmp_path/'set', make).iterdir()] == ['whole']


@pytest.fixture
def school(tmp_path, monkeypatch):
    "A folder with one data set as a folder and one as an archive, and their digests."
    folder = tmp_path/'school'
    (folder/'plain').mkdir(parents=True)
    (folder/'plain'/'x.jpg').write_bytes(b'x')
    (folder/'packed.tgz').write_bytes(ARCHIVE)
    sums = {'plain/x.jpg': b'x', 'packed.tgz': ARCHIVE}
    (folder/'SHA256SUMS').write_text(''.join(f'{hashlib.sha256(b).hexdigest()}  {n}\n' for n, b in sums.items()))
    monkeypatch.setenv('MINIDL_DATA', str(folder))
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'cache'))
    return folder


def test_a_folder_gives_folders_and_archives(school):
    assert get_data('plain') == school/'plain'
    assert (get_data('packed')/'val'/'a'/'2.jpg').exists()
    assert has_data('plain') and has_data('packed') and not has_data('mnist')


@pytest.mark.parametrize('name,file', [('plain', 'plain/x.jpg'), ('packed', 'packed.tgz')])
def test_a_changed_byte_is_found_by_sha256sums(school, name, file):
    b = bytearray((school/file).read_bytes())
    b[0] ^= 1
    (school/file).write_bytes(b)
    with pytest.raises(ValueError, match='sha256 .* instead of'): get_data(name)
    assert (school/file).exists()   # the user's own file is not ours to delete


def test_a_listed_file_that_is_missing_is_named(school):
    (school/'plain'/'x.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='x.jpg is listed in SHA256SUMS'): get_data('plain')


def test_a_folder_without_the_data_says_what_it_looked_for(school):
    with pytest.raises(FileNotFoundError, match='neither mnist/ nor mnist.tgz'): get_data('mnist')
    with pytest.raises(ValueError, match="called 'minst'"): get_data('minst')


def test_a_new_archive_of_the_same_name_is_not_taken_for_the_old(school):
    (school/'SHA256SUMS').unlink()
    get_data('packed')
    (school/'packed.tgz').write_bytes(tgz('packed', {'new.jpg': b'n'}))
    assert (get_data('packed')/'new.jpg').exists()


@pytest.mark.skipif(hasattr(os, 'geteuid') and os.geteuid() == 0, reason='root may write everywhere')
def test_a_cache_that_may_not_be_written_is_a_sentence(school, tmp_path, monkeypatch):
    (tmp_path/'ro').mkdir(mode=0o500)
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'ro'/'cache'))
    with pytest.raises(OSError, match='set MINIDL_CACHE'): get_data('packed')


def test_a_cache_on_a_read_only_disk_is_a_sentence(school, monkeypatch):
    def refuse(*args, **kw): raise OSError(errno.EROFS, 'Read-only file system')
    monkeypatch.setattr(datasets.os, 'replace', refuse)
    with pytest.raises(OSError, match='may not be written, or set MINIDL_CACHE'): get_data('packed')


def test_the_line_is_printed_once_and_says_sample(capsys, monkeypatch):
    monkeypatch.setattr(datasets, '_told', set())
    for _ in range(3): get_data('mnist')
    out = capsys.readouterr().out
    assert out.count('\n') == 1 and out.startswith('mnist: SAMPLE, ') and 'not MNIST' in out and '000 images' in out


def test_workers_and_other_ranks_stay_quiet(capsys, monkeypatch):
    monkeypatch.setattr(datasets, '_told', set())
    monkeypatch.setenv('RANK', '1')
    get_data('mnist')
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setattr(datasets.multiprocessing, 'parent_process', lambda: object())
    get_data('mnist')
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist', 'imagenette', 'pets', 'imdb', 'wikitext'])
def test_every_sample_is_there(name):
    assert any(p.is_file() for p in get_data(name).rglob('*'))


def test_imagewoof_has_no_sample_and_says_so():
    with pytest.raises(FileNotFoundError, match='no embedded sample. Set MINIDL_DATA=full'): get_data('imagewoof')


def idx(t): return bytes([0, 0, 8, t.ndim]) + b''.join(n.to_bytes(4, 'big') for n in t.shape) + t.numpy().tobytes()


def test_idx_round_trip_for_any_rank(tmp_path):
    for shape in (3,), (2, 5), (4, 28, 28), (0, 28, 28):
        t = torch.randint(0, 256, shape, dtype=torch.uint8)
        (tmp_path/'t').write_bytes(idx(t))
        assert torch.equal(read_idx(tmp_path/'t'), t)


@pytest.mark.parametrize('content,says', [(b'', 'no IDX'), (b'hello', 'no IDX'),
                                          (idx(torch.zeros(3, 3, dtype=torch.uint8))[:-1], 'cut off'),
                                          (b'\0\0\x08\x03\0\0', 'cut off')])
def test_a_broken_idx_file_is_a_sentence(tmp_path, content, says):
    (tmp_path/'t').write_bytes(content)
    with pytest.raises(ValueError, match=says): read_idx(tmp_path/'t')


def test_a_cut_off_gzip_is_a_sentence(tmp_path):
    (tmp_path/'t.gz').write_bytes((get_data('mnist')/'t10k-labels-idx1-ubyte.gz').read_bytes()[:-20])
    with pytest.raises(ValueError, match='cut off'): read_idx(tmp_path/'t.gz')


def test_labels_that_do_not_match_the_images_are_named(tmp_path):
    for part in 'train', 't10k':
        images = gzip.compress(idx(torch.zeros(3, 2, 2, dtype=torch.uint8)))
        (tmp_path/f'{part}-images-idx3-ubyte.gz').write_bytes(images)
        (tmp_path/f'{part}-labels-idx1-ubyte.gz').write_bytes(gzip.compress(idx(torch.zeros(2, dtype=torch.uint8))))
    with pytest.raises(ValueError, match='3 train images and 2 labels'): load_mnist(tmp_path)


def test_pictures_of_every_kind_are_shown():
    import matplotlib.pyplot as plt
    import numpy as np
    from PIL import Image
    kinds = [torch.rand(8, 9), torch.rand(1, 8, 9), torch.randn(3, 8, 9, requires_grad=True), np.zeros((8, 9)),
             Image.new('RGB', (9, 8)), torch.ones(3, 8, 9).byte()]
    for t in kinds: show_image(t)
    assert show_images(kinds, titles=list('abcdef'), ncols=4).shape == (2, 4)
    plt.close('all')
    with pytest.raises(ValueError, match=r'not \(784,\)'): show_image(torch.rand(784))
    with pytest.raises(ValueError, match='show_images'): show_image(torch.rand(8, 28, 28))
    with pytest.raises(ValueError, match='no pictures'): show_images([])

def test_long_titles_are_wrapped_and_overlap_nothing():
    import matplotlib
    matplotlib.use('agg')
    import matplotlib.pyplot as plt
    titles = ['american_pit_bull_terrier', 'English springer spaniel', 'a', None, 7,
              'one\ntwo three four five', '', 'b']
    axs = show_images(torch.rand(16, 8, 8), titles*2)
    axs[0, 0].figure.canvas.draw()
    shown = [ax.get_title() for ax in axs.flat]
    assert shown[:8] == ['american_pit_\nbull_terrier', 'English\nspringer\nspaniel', 'a', '', '7',
                         'one\ntwo three four\nfive', '', 'b']
    boxes = [(ax.title.get_window_extent(), ax) for ax in axs.flat if ax.get_title()]
    for box, own in boxes:
        assert not any(box.overlaps(ax.get_window_extent()) for ax in axs.flat)
        assert not any(box.overlaps(other) for other, ax in boxes if ax is not own)
        assert box.y1 <= own.figure.bbox.y1
    assert '\n' in show_image(torch.rand(8, 8), title='a title that is longer than its picture').get_title()
    plt.close('all')

def test_a_dollar_in_a_title_is_a_dollar():
    import matplotlib
    matplotlib.use('agg')
    import matplotlib.pyplot as plt
    axs = show_images(torch.rand(2, 8, 8), ['$\\frac$ off', 'from $5 to $6'])
    axs[0, 0].figure.canvas.draw()
    assert axs[0, 1].get_title() == 'from $5 to $6'
    plt.close('all')
