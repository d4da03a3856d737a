"""Files that are not what they should be: cut off, with bits flipped, empty, of another kind, or made by someone who
means harm. They are refused by name or made again; code in them does not run; a learner that was refused is as it
was."""
import json
import os
import pickle
import random
import struct
import tarfile
import warnings
import zlib


import pytest
import torch

from faults_common import language_model, plain_tokens, small_learner, net_of_faults
from minidl.data import ImageList, verify_images
from minidl.datasets import extract, get_data, read_idx
from minidl.learner import Checkpoint, load_learner, read_checkpoint, read_tensors, write_tensors
from minidl.text import SPECIAL_TOKENS, Numericalizer
from minidl.transfer import load_pretrained, read_weights
from minidl.ulmfit import load_encoder, read_encoder, save_encoder, text_classifier_learner

# how each kind of file is written, and each way to read it:
# {name: (write(path), {name of the reader: read(path) -> what it gave})}

LM = []     # one language model for all tests
def lm():
    if not LM: LM.append(language_model())
    return LM[0]

def write_checkpoint(path):
    learn = small_learner(Checkpoint(path.parent/'c', monitor=None))
    learn.fit(1)
    next((path.parent/'c').iterdir()).replace(path)
    (path.parent/'c').rmdir()

def weights(learn): return learn.model.state_dict()

def pretrained(path):
    model = net_of_faults()
    load_pretrained(model, path)
    return model.state_dict()

FILES = dict(
    checkpoint=(write_checkpoint, read_checkpoint),
    resume=(write_checkpoint, lambda p: weights(small_learner(Checkpoint(p.parent/'c')).fit(resume=p))),
    save=(lambda p: small_learner().save(p), lambda p: weights(small_learner().load(p))),
    export=(lambda p: small_learner().export(p), lambda p: weights(load_learner(p))),
    weights=(lambda p: torch.save(net_of_faults().state_dict(), p), read_weights),
    pretrained=(lambda p: write_tensors(p, net_of_faults().state_dict()), pretrained),
    encoder=(lambda p: save_encoder(p, lm()), read_encoder),
    lm_learner=(lambda p: save_encoder(p, lm()), lambda p: load_encoder(lm().model, p, lm().dls.vocab)))

def same(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    if isinstance(a, dict): return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b or a != a and b != b

@pytest.fixture
def file(tmp_path): return tmp_path/'the_file'

def refused(read, file, kind=ValueError):
    with pytest.raises(kind) as e: read(file)
    assert file.name in str(e.value)
    return str(e.value)

@pytest.mark.parametrize('name', FILES)
def test_a_file_cut_off_anywhere_is_refused_by_name(name, file):
    write, read = FILES[name]
    write(file)
    whole = file.read_bytes()
    for n in {0, 1, 7, 8, 9, 100, *range(0, len(whole), len(whole)//8 + 1), len(whole) - 100, len(whole) - 1}:
        file.write_bytes(whole[:n])
        refused(read, file)

@pytest.mark.parametrize('content', [b'{"not": "it"}', b'\0'*500, b'PK\x03\x04 no zip',
                                     (2**62).to_bytes(8, 'little') + b'{}', b'12345678{'],
                         ids=['json', 'zeros', 'zip', 'endless header', 'short header'])
@pytest.mark.parametrize('name', FILES)
def test_a_file_of_another_kind_is_refused_by_name(name, content, file):
    file.write_bytes(content)
    refused(FILES[name][1], file)

@pytest.mark.parametrize('name', ['weights', 'checkpoint', 'resume', 'save', 'export', 'encoder', 'lm_learner'])
def test_a_folder_in_the_place_of_a_file_is_named(name, file):
    file.mkdir()
    refused(FILES[name][1], file, (ValueError, OSError))

FLIPS = 60

@pytest.mark.parametrize('name', [n for n in FILES if n not in ('lm_learner', 'resume')])
def test_a_flipped_bit_is_found_or_changes_nothing(name, file):
    write, read = FILES[name]
    write(file)
    whole, right, draw = file.read_bytes(), read(file), random.Random(0)
    file = file.parent/'bad'/file.name      # another file: what was read may still look into the first one
    file.parent.mkdir()
    for _ in range(FLIPS):
        bad, at = bytearray(whole), draw.randrange(len(whole)*8)
        bad[at//8] ^= 1 << at % 8
        file.write_bytes(bad)
        try: got = read(file)
        except ValueError as e: assert file.name in str(e)
        else: assert same(got, right), f'bit {at} of {len(whole)*8}'

def test_files_without_a_check_sum_are_read(file):
    from safetensors.torch import save_file
    state = net_of_faults().state_dict()
    save_file(state, file, {'minidl': json.dumps({'aliases': {'again': '0.bias'}, 'info': [1]})})
    tensors, info = read_tensors(file)
    assert info == [1] and torch.equal(tensors.pop('again'), state['0.bias'])
    assert same(dict(sorted(tensors.items())), dict(sorted(state.items())))
    save_file(state, file)
    assert set(read_tensors(file)[0]) == set(read_weights(file)) == set(state)

@pytest.mark.parametrize('damage',
                         [lambda b: b[:len(b)//2], lambda b: b'', lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:],
                                    lambda b: b[:99] + bytes([b[99] ^ 1]) + b[100:], lambda b: b'something else'],
                         ids=['half', 'empty', 'data flipped', 'header flipped', 'other'])
def test_damaged_tokens_in_the_cache_are_made_again(damage, tmp_path, monkeypatch):
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path))
    tokens = plain_tokens()
    file, = (tmp_path/'tokens').iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(UserWarning, match=f'{file.name} is damaged'): assert plain_tokens() == tokens
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert plain_tokens() == tokens

def test_a_folder_in_the_place_of_cached_tokens_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path))
    tokens = plain_tokens()
    file, = (tmp_path/'tokens').iterdir()
    file.unlink()
    file.mkdir()
    with pytest.warns(UserWarning, match='damaged|could not be kept'): assert plain_tokens() == tokens

def test_an_encoder_whose_vocabulary_is_not_its_own_is_refused_by_name(file):
    state, vocab = lm().model.state_dict(), list(lm().dls.vocab)
    good = dict(kind='language model', version=1, special=SPECIAL_TOKENS, vocab=vocab)
    for bad, words in [(dict(vocab=vocab[:-1]), 'rows of the embedding'),
                       (dict(special=SPECIAL_TOKENS[::-1]), 'special tokens'),
                       (dict(version=99), 'another version'), (dict(kind='else'), 'no encoder')]:
        write_tensors(file, state, good | bad)
        with pytest.raises(ValueError, match=f'the_file.*{words}'): read_encoder(file)
    for info in None, [], 'text', 3:
        write_tensors(file, state, info)
        refused(read_encoder, file)

def test_a_learner_that_was_refused_a_file_is_as_it_was(file):
    learn, model = small_learner(), lm().model
    before = {k: t.clone() for k, t in weights(learn).items()}
    of_lm = {k: t.clone() for k, t in model.state_dict().items()}
    file.write_bytes(b'no such thing')
    for read in (learn.load, lambda p: learn.fit(1, resume=p), lambda p: load_pretrained(learn.model, p),
                 lambda p: load_encoder(model, p, [])):
        refused(read, file)
    assert same(before, weights(learn)) and same(of_lm, model.state_dict()) and not learn.fitting


# ---- files that mean harm

class Payload:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (self.path,)

def torch_zip(o, path): torch.save(o, path)
def torch_old(o, path): torch.save(o, path, _use_new_zipfile_serialization=False)
def plain_pickle(o, path): path.write_bytes(pickle.dumps(o))
def pickle_protocol_0(o, path): path.write_bytes(pickle.dumps(o, protocol=0))

READERS = {name: read for name, (_, read) in FILES.items()} | dict(
    load_with_opt=lambda p: small_learner().load(p, with_opt=True),
    load_learner_with_model=lambda p: load_learner(p, model=net_of_faults()),
    read_tensors=read_tensors, classifier=lambda p: text_classifier_learner(lm_like_classifier(), encoder=p))

def lm_like_classifier():
    "Loaders of labeled texts."
    from minidl.data import SplitData, label_by_col
    from minidl.text import TextList, Tokenizer
    table = dict(text=['good film', 'bad film']*8, label=['pos', 'neg']*8)
    il = TextList.from_df(table, col='text')
    return label_by_col(SplitData.split_random(il, 0.25), 'label',
                        proc_x=[Tokenizer(tok='regex', cache=False), Numericalizer()]).to_dls(4)

@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('write', [torch_zip, torch_old, plain_pickle, pickle_protocol_0])
@pytest.mark.parametrize('reader', READERS)
def test_a_pickle_with_a_payload_is_refused_and_does_not_run(reader, write, file):
    payload = Payload(str(file.parent/'it ran'))
    for o in payload, {'format': 2, 'model': net_of_faults().state_dict(), 'cbs': payload}, {'0.weight': payload}:
        write(o, file)
        refused(READERS[reader], file)
    assert os.listdir(file.parent) == ['the_file']

@pytest.mark.parametrize('reader', ['weights', 'checkpoint', 'resume'])
def test_the_advice_to_run_the_code_of_a_file_is_not_passed_on(reader, file):
    torch.save(Payload('x'), file)
    assert 'weights_only' not in refused(READERS[reader], file)

def test_the_payload_would_run_where_pickles_are_trusted(tmp_path):
    pickle.loads(pickle.dumps(Payload(str(tmp_path/'it ran'))))
    assert os.listdir(tmp_path) == ['it ran']

def test_a_function_that_is_not_registered_cannot_be_called_by_a_file(file):
    for kind in 'model', 'pipe':
        spec = dict(name='os.mkdir', args=[str(file.parent/'it ran')], kwargs={})
        good = dict(name='net_of_faults', args=[], kwargs={})
        write_tensors(file, net_of_faults().state_dict(), dict(model=good, pipe=None) | {kind: spec})
        with pytest.raises(ValueError, match="the_file needs 'os.mkdir', which is not registered"): load_learner(file)
    assert os.listdir(file.parent) == ['the_file']

def archive(path, *members):
    "A tar file with members (name, type, target of the link)."
    with tarfile.open(path, 'w:gz') as t:
        t.addfile(tarfile.TarInfo('mine/first.txt'))
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode, info.devmajor, info.devminor = kind, target, 0o6777, 1, 5
            t.addfile(info)

REG, SYM, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
HOSTILE = {
    'up': [('../up.txt', REG, '')], 'up within': [('mine/../../up.txt', REG, '')], 'absolute': [('/up.txt', REG, '')],
    'the folder itself': [('..', REG, '')],
    'link up': [('mine/l', SYM, '../../up')], 'absolute link': [('mine/l', SYM, '/etc/passwd')],
    'hard link out': [('mine/l', HARD, '../../etc/passwd')],
    'through a link': [('mine/l', SYM, '../..'), ('mine/l/up.txt', REG, '')],
    'character device': [('mine/zero', tarfile.CHRTYPE, '')],
    'block device': [('mine/disk', tarfile.BLKTYPE, '')], 'pipe': [('mine/pipe', tarfile.FIFOTYPE, '')]}

@pytest.mark.parametrize('name', HOSTILE)
def test_an_archive_that_means_harm_is_refused_by_name_and_nothing_of_it_stays(name, tmp_path, monkeypatch):
    (tmp_path/'in').mkdir()
    archive(tmp_path/'in'/'mine.tgz', *HOSTILE[name])
    monkeypatch.setenv('MINIDL_DATA', str(tmp_path/'in'))
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'cache'))
    with pytest.raises(ValueError, match='mine.tgz is not safe to extract'): get_data('mine')
    there = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*') if p.suffix != '.lock')
    assert there == ['cache', 'cache/extracted', 'in', 'in/mine.tgz']

def test_files_of_an_archive_cannot_be_run_as_someone_else(tmp_path):
    archive(tmp_path/'a.tgz', ('mine/s', REG, ''))
    (tmp_path/'in').mkdir()
    assert (extract(tmp_path/'a.tgz', tmp_path/'in')/'s').stat().st_mode & 0o6000 == 0

def test_an_image_that_would_fill_the_memory_is_refused_by_name(tmp_path):
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    head = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 2, 0, 0, 0)        # 10 GB in 100 bytes
    bomb = tmp_path/'bomb.png'
    bomb.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT',
                                                                         zlib.compress(b'\0'*99)) + chunk(b'IEND', b''))
    with pytest.raises(OSError, match='bomb.png cannot be read as an image'): ImageList.from_files(tmp_path).get(0)
    assert verify_images([bomb]) == [bomb]

def test_an_idx_file_that_promises_too_much_is_refused_by_name(tmp_path):
    (tmp_path/'x-idx').write_bytes(b'\0\0\x08\x03' + b'\xff'*12)
    with pytest.raises(ValueError, match='x-idx is cut off or damaged'): read_idx(tmp_path/'x-idx')
