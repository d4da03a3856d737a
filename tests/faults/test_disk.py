"""A disk that is full, and one that may not be written: a sentence or an OSError, the old file as it was, nothing
half-written. On Linux the disks are real ones (a tmpfs, a read-only mount) that one process alone sees."""
import os
import warnings

import pytest

from disks import no_file_over
from faults_common import (LONG, POSIX, contents, full, in_child, language_model, net_of_faults, own_mounts,
                           plain_tokens, read_only, small_disk, small_learner)
from minidl.datasets import download, get_data
from minidl.learner import Checkpoint
from minidl.ulmfit import save_encoder
from test_datasets import BLOB, MD5, Server, tgz

# each writes a large file into a folder: (folder, changed) -> None, other bytes if `changed`

def big(changed):
    learn = small_learner(model=net_of_faults(4000))
    for p in learn.model.parameters(): p.data += changed
    return learn

def checkpoint(folder, changed): small_learner(Checkpoint(folder, every=1), model=net_of_faults(4000)).fit(2 + changed)
def save(folder, changed): big(changed).save(folder/'m.safetensors')
def export(folder, changed): big(changed).export(folder/'e.safetensors')
def encoder(folder, changed):
    learn = language_model(100)
    for p in learn.model.parameters(): p.data += changed
    save_encoder(folder/'wiki.safetensors', learn)

WRITERS = [checkpoint, save, export, encoder]

def fails_and_leaves(writer, folder):
    "Writing fails with an OSError that names the disk, and the folder is as it was."
    before = contents(folder)
    with pytest.raises(OSError, match='(?s)(No space|disk full|written)'): writer(folder, True)
    assert contents(folder) == before and before

@pytest.mark.parametrize('writer', WRITERS)
@pytest.mark.parametrize('call', ['fsync', 'replace', 'write'])
def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(writer, call, tmp_path, monkeypatch):
    writer(tmp_path, False)
    if call != 'write': monkeypatch.setattr(os, call, full)
    with no_file_over(20_000 if call == 'write' else 1 << 30): fails_and_leaves(writer, tmp_path)
    monkeypatch.undo()
    writer(tmp_path, True)      # and when there is room again it works

@pytest.mark.parametrize('call', ['fsync', 'replace', 'write'])
def test_tokens_that_find_no_room_are_a_warning_and_right(call, tmp_path, monkeypatch):
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path))
    if call != 'write': monkeypatch.setattr(os, call, full)
    with pytest.warns(UserWarning, match='could not be kept'), no_file_over(20_000 if call == 'write' else 1 << 30):
        tokens = plain_tokens()
    assert tokens == plain_tokens(cache=False) and contents(tmp_path) == {}

@pytest.mark.parametrize('call', ['mkdir', 'replace'])
def test_data_that_finds_no_room_is_a_sentence_and_leaves_nothing(call, tmp_path, monkeypatch):
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/'mine.tgz').write_bytes(tgz('mine', {'a.txt': b'1'}))
    monkeypatch.setenv('MINIDL_DATA', str(tmp_path/'in'))
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'cache'))
    with monkeypatch.context() as m:
        m.setattr(os, call, full)
        with pytest.raises(OSError, match='disk is full: free some space, or set MINIDL_CACHE'): get_data('mine')
    assert not (tmp_path/'cache').exists() or contents(tmp_path/'cache') == {}
    assert (get_data('mine')/'a.txt').read_bytes() == b'1'

def on_a_small_disk(pipe, folder, url):
    "Everything that is written to disk, on one that is full."
    own_mounts()
    small_disk(folder, '600k')
    os.environ['MINIDL_CACHE'] = str(folder/'cache')
    old = big(0)
    old.save(folder/'m.safetensors')
    learn = small_learner(Checkpoint(folder/'c', every=1))
    learn.fit(1)
    room = b'x'*(os.statvfs(folder).f_bavail*os.statvfs(folder).f_frsize - 20_480)
    (folder/'filler').write_bytes(room)
    for writer in save, export, encoder: fails_and_leaves(writer, folder)
    before = contents(folder)
    with pytest.raises(OSError): learn.fit(2)       # its checkpoint finds no room
    assert contents(folder) == before and not learn.fitting
    with pytest.raises(OSError, match='disk is full'): download(url + 'blob', folder/'blob', len(BLOB), MD5(BLOB))
    with pytest.warns(UserWarning, match='could not be kept'): tokens = plain_tokens()
    assert len(tokens) == len(LONG)
    (folder.parent/'bomb.tgz').write_bytes(tgz('bomb', {'zeros': bytes(50_000_000)}))       # 50 MB in 50 kB
    os.environ['MINIDL_DATA'] = str(folder.parent)
    with pytest.raises(OSError, match='disk is full'): get_data('bomb')
    assert contents(folder) == before
    (folder/'filler').unlink()
    learn.fit(2)
    assert small_learner(Checkpoint(folder/'c')).fit(resume=folder/'c').recorder.losses == learn.recorder.losses
    return 'tried'

@POSIX
def test_on_a_small_disk_that_is_full_everything_fails_whole(tmp_path):
    with Server(dict(blob=BLOB)) as server: assert in_child(on_a_small_disk, tmp_path/'disk', server.url) == 'tried'


# ---- a folder that may not be written

def on_a_read_only_disk(pipe, folder):
    (folder/'mine.tgz').write_bytes(tgz('mine', {'a.txt': b'1'}))
    (folder/'other.tgz').write_bytes(tgz('other', {'a.txt': b'2'}))
    os.environ.update(MINIDL_DATA=str(folder), MINIDL_CACHE=str(folder/'cache'))
    path, kept = get_data('mine'), plain_tokens()
    small_learner(Checkpoint(folder/'c')).fit(1)
    own_mounts()
    read_only(folder)
    before = contents(folder, but=())
    assert get_data('mine') == path                 # what is there is used
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert plain_tokens() == kept
    learn = small_learner(Checkpoint(folder/'c'))
    learn.fit(resume=folder/'c')
    with pytest.raises(OSError, match='may not be written, or set MINIDL_CACHE'): get_data('other')
    with pytest.warns(UserWarning, match='could not be kept'): plain_tokens(LONG[::-1])
    for write in (lambda: learn.save(folder/'m'), lambda: learn.fit(1),
                  lambda: learn.fit(1, cbs=Checkpoint(folder/'new'))):
        with pytest.raises(OSError, match='(?i)read.only|could not be written'): write()
        assert not learn.fitting
    assert contents(folder, but=()) == before
    return 'tried'

@POSIX
def test_on_a_read_only_disk_what_is_there_is_used_and_the_rest_is_a_sentence(tmp_path):
    assert in_child(on_a_read_only_disk, tmp_path) == 'tried'

def test_a_file_in_the_place_of_the_cache_folder_is_named(tmp_path, monkeypatch):
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/'mine.tgz').write_bytes(tgz('mine', {'a.txt': b'1'}))
    (tmp_path/'cache').write_text('in the way')
    monkeypatch.setenv('MINIDL_DATA', str(tmp_path/'in'))
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'cache'))
    with pytest.raises(OSError, match=str(tmp_path/'cache')): get_data('mine')
    with pytest.warns(UserWarning, match='could not be kept'): assert plain_tokens() == plain_tokens(cache=False)
    with pytest.raises(OSError, match=str(tmp_path/'cache')): small_learner(Checkpoint(tmp_path/'cache')).fit(1)
    assert contents(tmp_path)['cache'] == b'in the way'

def test_a_folder_in_the_place_of_a_file_to_write_is_named_and_left(tmp_path):
    (tmp_path/'m').mkdir()
    for write in big(0).save, big(0).export:
        with pytest.raises(OSError, match=str(tmp_path/'m')): write(tmp_path/'m')
    assert list(tmp_path.rglob('*')) == [tmp_path/'m']
