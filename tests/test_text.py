"""Texts (chapter 11): from files to tokens in any number of processes, to numbers, to batches that lose nothing; what
is odd in texts, caches and processes; and learners on top, stopped, shared out and exported."""
import copy
import json
import multiprocessing
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

import minidl.text
from minidl.data import (Pipe, SplitData, grandparent_splitter, label_by_col, label_by_func, make_tfm, parent_labeler,
                         register_tfm, tfm_spec)
from minidl.datasets import get_data
from minidl.learner import Callback, Checkpoint, Learner, in_order, load_learner, register
from minidl.scale import RankBatches, launch, share_train
from minidl.text import (BOS, EOS, PAD_ID, PRE_RULES, SPECIAL_TOKENS, UNK_ID, LengthBatches, LMLoader, Numericalizer,
                         Ragged, TextList, TokenLists, Tokenizer, add_eos_bos, deal_caps, fixup_text, label_for_lm,
                         pad_collate, replace_all_caps, replace_rep, replace_wrep, rm_useless_spaces, spec_add_spaces,
                         sub_br, text_vocab)
from minidl.training import DataLoaders, accuracy

IN_WORKER = multiprocessing.parent_process


@register_tfm
def killed_by_magic(t):
    "A worker that meets the word is gone, as if memory had run out."
    if 'abracadabra' in t and IN_WORKER(): os.kill(os.getpid(), signal.SIGKILL)
    return t

@register_tfm
def fails_on_zero(t): return t if 1/(len(t) - 4) else t

@register
def bag(n_tokens, n_out=2):
    torch.manual_seed(0)
    return Bag(n_tokens, n_out)

class Bag(nn.Module):
    "Mean of the embeddings."
    def __init__(self, n_tokens, n_out):
        super().__init__()
        self.emb, self.out = nn.Embedding(n_tokens, 8, padding_idx=PAD_ID), nn.Linear(8, n_out)
    def forward(self, ids, lengths): return self.out(self.emb(ids).sum(1)/lengths[:, None].clamp(min=1))

@register
def next_token(n_tokens):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(n_tokens, 8), nn.Linear(8, n_tokens))

def lm_cross_entropy(pred, targ): return F.cross_entropy(pred.flatten(0, 1), targ.flatten())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    "A cache of its own for every test, but the samples stay where they are."
    path = get_data('imdb')
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr(minidl.text, 'get_data', lambda name: path, raising=False)
    return tmp_path/'cache'/'tokens'

@pytest.fixture(scope='module')
def files(): return sorted(get_data('imdb').rglob('*.txt'))

@pytest.fixture(scope='module')
def some(files): return [f.read_text(encoding='utf-8') for f in files[:200]]

def plain(**how): return Tokenizer(**{'tok': 'regex', 'cache': False} | how)
def arrays(lengths, seed=0): return [np.random.default_rng(seed + i).integers(8, 99, n) for i, n in enumerate(lengths)]
def batches(dl): return [(xb.clone(), yb.clone()) for xb, yb in dl]
def read_rows(batches, i=1):
    return [torch.cat([b[i][r] for b in batches if r < len(b[i])]) for r in range(len(batches[0][i]))]
def same(a, b): return len(a) == len(b) and all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b))


# Rules

@pytest.mark.parametrize('rule, before, after', [
    (replace_rep, 'cccc', ' xxrep 4 c '), (replace_rep, 'ccc', 'ccc'), (replace_rep, 'so    far', 'so    far'),
    (replace_rep, '!!!!!?', ' xxrep 5 ! ?'), (replace_rep, 'ssssss', ' xxrep 6 s '),
    (replace_wrep, 'word word word word word ', ' xxwrep 5 word  '), (replace_wrep, 'no no no ', 'no no no '),
    (replace_wrep, 'sword word word word word', 'sword word word word word'),
    (replace_all_caps, ['I', 'AM', 'SHOUTING'], ['I', 'xxup', 'am', 'xxup', 'shouting']),
    (replace_all_caps, ['U.S.', '42', ''], ['xxup', 'u.s.', '42', '']),
    (deal_caps, ['My', 'name', 'is', 'Jeremy'], ['xxmaj', 'my', 'name', 'is', 'xxmaj', 'jeremy']),
    (deal_caps, ['I', 'iPhone', 'xxmaj', ''], ['i', 'iphone', 'xxmaj', '']),
    (add_eos_bos, [], [BOS, EOS]), (sub_br, 'a<br />b< BR/>c<br>', 'a\nb\nc\n'),
    (spec_add_spaces, 'a/b#c', 'a / b # c'), (rm_useless_spaces, 'a  b    c d', 'a b c d'),
    (fixup_text, 'Tom &amp; Jerry', 'Tom & Jerry'), (fixup_text, 'don#39;t amp;', "don't &"),
    (fixup_text, '&amp;lt;b&amp;gt; a stamp; #1;', '<b> a stamp; #1;'), (fixup_text, 'wait\x85\xa0now', 'wait… now'),
    (fixup_text, '3 @.@ 5 <unk> two @-@ way', '3.5 xxunk two-way')])
def test_a_rule_does_what_it_says(rule, before, after): assert rule(before) == after

def test_rules_take_linear_time():
    for t in 'a'*200_000, 'ab'*100_000, 'a '*100_000, '&'*200_000, 'amp;'*50_000, '. '*100_000:
        assert len(plain().clean(t)) < 10**6

def test_the_special_tokens_stand_at_the_head_in_their_order():
    assert SPECIAL_TOKENS == ['xxunk', 'xxpad', 'xxbos', 'xxeos', 'xxrep', 'xxwrep', 'xxup', 'xxmaj']
    assert (UNK_ID, PAD_ID) == (0, 1)


# Tokens

def test_the_quick_way_gives_the_tokens_of_the_plain_way_for_all_reviews(files):
    tok = Tokenizer(cache=False)
    tokens = tok(files)
    assert len(tokens) == len(files)
    for f, t in zip(files, tokens): assert t == tok.tokenize(f.read_text(encoding='utf-8'))

def test_tokens_are_those_of_spacy_on_the_whole_text_up_to_white_space(some):
    import spacy
    nlp, tok = spacy.blank('en').tokenizer, Tokenizer(cache=False)
    words = lambda tokens: [t.strip() for t in tokens if t.strip()]
    for text in some:
        whole = deal_caps(replace_all_caps([t.text for t in nlp(tok.clean(text))]))
        assert words(tok.tokenize(text)[1:-1]) == words(whole)

@pytest.mark.parametrize('kind', ['spacy', 'regex'])
def test_any_number_of_workers_gives_the_same_in_the_same_order(files, kind):
    one = Tokenizer(tok=kind, cache=False)(files[:300])
    tok = Tokenizer(3, tok=kind, cache=False)
    for _ in range(2): assert tok(files[:300]) == one
    assert Numericalizer()(tok(files[:300])) == Numericalizer()(one)
    tok.close()

@settings(max_examples=60)
@given(st.lists(st.text(st.sampled_from('aAbB \n\t\x85<br/>&;#.!x é'), max_size=60), max_size=12), st.integers(1, 5))
def test_odd_texts_are_tokenized_alike_in_every_way(texts, size):
    tok = plain()
    tokens = tok(texts)
    assert tokens == [tok.tokenize(t) for t in texts]
    parts = [minidl.text._tokenize(tok, texts[i:i+size]) for i in range(0, len(texts), size)]
    assert TokenLists.join(parts) == tokens
    assert all(t[0] == BOS and t[-1] == EOS for t in tokens)

def test_nothing_little_and_no_texts():
    for tok in plain(), Tokenizer(cache=False):
        assert tok(['', '  ', 'Bad']) == [[BOS, EOS], [BOS, EOS], [BOS, 'xxmaj', 'bad', EOS]]
        assert len(tok([])) == 0 and list(tok([])) == []
    ids = Numericalizer(vocab=SPECIAL_TOKENS)(plain()(['', 'new']))
    assert [i.tolist() for i in ids] == [[2, 3], [2, 0, 3]]

@pytest.mark.parametrize('bad', [None, float('nan'), 3, b'bytes', ['a']])
def test_what_is_no_text_is_told_with_its_position(bad):
    with pytest.raises(TypeError, match='Text number 2 is'): plain()(['a', 'b', bad])

def test_one_text_is_not_a_list_of_texts():
    for one in 'a text', Path('a.txt'):
        with pytest.raises(TypeError, match='a list of texts, not one'): plain()(one)

@pytest.mark.parametrize('n_workers', [1, 2])
def test_bytes_that_are_no_utf8_are_refused_with_the_files_name_or_replaced(tmp_path, n_workers):
    paths = [tmp_path/f'{i}.txt' for i in range(100)]
    for p in paths: p.write_text('fine', encoding='utf-8')
    paths[70].write_bytes('schön'.encode('latin-1'))
    with pytest.raises(ValueError, match=r'70\.txt is not UTF-8.*errors=.replace'): plain(n_workers=n_workers)(paths)
    assert plain(n_workers=n_workers, errors='replace')(paths)[70] == [BOS, 'sch', '�', 'n', EOS]
    with pytest.raises(FileNotFoundError, match='gone.txt'):
        plain(n_workers=n_workers)(paths[:69] + [tmp_path/'gone.txt'])

def test_a_lone_surrogate_is_told_or_replaced():
    with pytest.raises(ValueError, match='is not UTF-8'): Tokenizer(cache=False)(['fine', 'bad \ud800'])
    assert Tokenizer(cache=False, errors='replace')(['bad \ud800'])[0] == [BOS, 'bad', '?', EOS]

def test_a_byte_order_mark_and_windows_line_ends_are_no_tokens(tmp_path):
    for text in '\ufeffone\r\ntwo', 'one\r\ntwo':
        (tmp_path/'a.txt').write_bytes(text.encode('utf-8'))
        for tok in plain(), Tokenizer(cache=False):
            want = [BOS, 'one', '\n', 'two', EOS]
            assert list(tok([tmp_path/'a.txt', text])) == [want, want] and tok.tokenize(text) == want

def test_without_spacy_a_sentence_says_what_to_install_and_the_plain_tokenizer_goes_on(monkeypatch):
    minidl.text._splitter.cache_clear()
    monkeypatch.setitem(sys.modules, 'spacy', None)
    with pytest.raises(ImportError, match=r'pip install spacy.*regex'): Tokenizer()(['a'])
    assert plain()(["It isn't."])[0] == [BOS, 'xxmaj', 'it', "isn't", '.', EOS]
    monkeypatch.undo()
    minidl.text._splitter.cache_clear()

def test_importing_the_module_does_not_import_spacy():
    subprocess.run([sys.executable, '-c', 'import sys, minidl.text; assert "spacy" not in sys.modules'], check=True)

@pytest.mark.parametrize('text', ["Is this GREAT, or what? Really, we don't know.", 'A film (1972) at $10: wow!!!!!!',
                                  'very very very very good', 'first line\n\nSecond line'])
def test_decode_gives_readable_text(text):
    tok = Tokenizer(cache=False)
    assert tok.decode(tok.tokenize(text)).lower() == text.lower()

def test_decode_survives_what_a_language_model_may_say():
    for tokens in (['xxmaj'], ['xxrep'], ['xxrep', 'the', 'a'], ['xxwrep', '9'*30], ['xxup', 'xxmaj', 'xxrep', '3'],
                   ['xxeos', 'xxpad']):
        assert len(plain().decode(tokens)) < 1000
    assert plain().decode(['xxrep', '999999', 'a']) == 'a'*100
    assert plain().decode(['xxup']*3000 + ['a']) == 'A'
    for mark in 'xxrep', 'xxwrep': assert len(plain().decode([mark, '100']*4 + ['a'])) < 1000
    assert plain().decode(['xxwrep', '2', 'xxmaj', 'so', 'xxrep', '3', '!', 'good']) == 'So So!!! good'

def test_settings_that_make_no_sense_are_told():
    for how, words in [(dict(tok='bert'), "'spacy' or 'regex'"), (dict(errors='ignore'), "'strict' or 'replace'"),
                       (dict(n_workers=0), 'at least 1'), (dict(pre_rules=['nope']), 'no registered rule'),
                       (dict(pre_rules=['nope']), 'import the module that defines it'),
                       (dict(post_rules=[lambda t: t]), 'no registered rule; put @register_tfm')]:
        with pytest.raises(ValueError, match=words): Tokenizer(**how)

def test_rules_can_be_left_out_and_a_changed_rule_is_used(monkeypatch):
    assert plain(post_rules=[])(['SO Bad'])[0] == [BOS, 'SO', 'Bad', EOS]
    tok = plain(post_rules=[deal_caps])
    assert tok(['Bad'])[0] == [BOS, 'xxmaj', 'bad', EOS]
    monkeypatch.setitem(minidl.text.REGISTRY, 'deal_caps', lambda tokens: ['new'])
    assert tok(['Bad'])[0] == [BOS, 'new', EOS]

def test_a_tokenizer_remembers_a_bounded_number_of_words(monkeypatch):
    tok = plain()
    tok._words = {str(i): [] for i in range(2**17)}
    tok._made_for = None
    tok._words.update({'x': ['x']})
    assert tok.recall('y') == ['y'] and len(tok._words) == 1


# Processes

def test_a_killed_worker_is_told_and_the_next_call_works():
    texts = ['fine']*200
    tok = plain(n_workers=2, pre_rules=[killed_by_magic])
    with pytest.raises(RuntimeError, match='worker process of the Tokenizer was killed'): tok(texts + ['abracadabra'])
    assert len(tok(texts)) == 200
    for pid in list(tok._pool._processes): os.kill(pid, signal.SIGKILL)
    try: tok(texts)
    except RuntimeError as e: assert 'Call it again' in str(e)
    assert len(tok(texts)) == 200
    tok.close()

def test_an_error_in_a_workers_rule_arrives_and_the_pool_goes_on():
    tok = plain(n_workers=2, pre_rules=[fails_on_zero])
    with pytest.raises(ZeroDivisionError): tok(['okay!']*100 + ['four'])
    assert len(tok(['okay!']*100)) == 100
    tok.close()

@pytest.mark.skipif(not hasattr(os, 'pidfd_open'), reason='needs pidfd')
def test_workers_end_when_their_parent_is_killed():
    script = '''import sys; from minidl.text import Tokenizer
tok = Tokenizer(2, tok='regex', cache=False)
tok(['a']*200)
print(*tok._pool._processes, flush=True)
sys.stdin.read()'''
    with subprocess.Popen([sys.executable, '-c', script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as p:
        fds = [os.pidfd_open(int(pid)) for pid in p.stdout.readline().split()]
        p.kill()
    assert len(fds) == 2
    for fd in fds:
        assert select.select([fd], [], [], 30)[0], 'a worker lives on'
        os.close(fd)

def test_it_works_under_spawn(tmp_path):
    (tmp_path/'s.py').write_text('''import multiprocessing
from minidl.text import Tokenizer
if __name__ == '__main__':
    multiprocessing.set_start_method('spawn')
    tok = Tokenizer(2, tok='regex', cache=False)
    tokens = tok([f'Word {i}' for i in range(100)])
    print(len(tokens), tokens[42])
''')
    out = subprocess.run([sys.executable, tmp_path/'s.py'], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith(f"100 {[BOS, 'xxmaj', 'word', '42', EOS]}")

RULES = '''import multiprocessing
from minidl.data import register_tfm
from minidl.text import Tokenizer

@register_tfm
def shout(t): return t.upper()

def third(rule): return Tokenizer(2, tok='regex', cache=False, pre_rules=[rule], post_rules=[])(['Word']*100)[3][1]
'''

IN_A_SCRIPT = RULES + '''
if __name__ == '__main__':          # a worker does not come here
    import rules_of_mine
    multiprocessing.set_start_method('spawn')
    print(third(shout), third(rules_of_mine.whisper))

    @register_tfm
    def hidden(t): return t
    try: third(hidden)
    except Exception as e: print(type(e).__name__, e)
'''

def test_spawned_workers_get_the_rules_of_a_script_and_of_its_modules_or_a_sentence(tmp_path):
    (tmp_path/'rules_of_mine.py').write_text('from minidl.data import register_tfm\n'
                                             '@register_tfm\ndef whisper(t): return t.lower()\n')
    (tmp_path/'s.py').write_text(IN_A_SCRIPT)
    out = subprocess.run([sys.executable, tmp_path/'s.py'], capture_output=True, text=True, check=True).stdout
    assert 'WORD word\n' in out        # a bar may stand before it, where workers take long to start
    assert re.search('PicklingError A rule cannot be sent.*hidden.*into a module', out)

IN_A_NOTEBOOK = RULES + '''
import sys
multiprocessing.set_start_method(sys.argv[1])
tok = Tokenizer(2, tok='regex', cache=False, pre_rules=[shout], post_rules=[])
try: tok(['Word']*100)
except Exception as e: print(type(e).__name__, e)
multiprocessing.set_start_method('fork', force=True)        # as the sentence says
print(tok(['Word']*100)[3][1], third(shout))
'''

@pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='needs fork')
@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_a_rule_of_a_notebook_is_a_sentence_for_workers_that_are_not_forked(method):
    python = [sys.executable, '-c', IN_A_NOTEBOOK, method]
    out = subprocess.run(python, capture_output=True, text=True, check=True).stdout
    assert re.search('PicklingError A rule cannot be sent.*shout.*n_workers=1', out)
    assert 'WORD WORD\n' in out

def test_a_rule_that_cannot_be_pickled_is_told_before_workers_start(monkeypatch):
    def local(t): return t
    spawn = multiprocessing.get_context('spawn')
    monkeypatch.setitem(minidl.text.REGISTRY, 'local', local)
    monkeypatch.setattr(multiprocessing, 'get_context', lambda: spawn)
    tok = plain(n_workers=2, pre_rules=[local])
    with pytest.raises(pickle.PicklingError, match='cannot be sent.*local.*into a module'): tok(['a']*200)
    assert tok._pool is None

def test_a_tokenizer_pickles_and_copies_without_its_workers():
    tok = plain(n_workers=2)
    tok(['a']*200)
    for other in pickle.loads(pickle.dumps(tok)), copy.deepcopy(tok):
        assert other == tok and other._pool is None and other._words == {}
    made = make_tfm(json.loads(json.dumps(tfm_spec(tok))))
    assert made == tok and made(['A b']) == tok(['A b'])
    tok.close()

def test_a_daemon_process_does_the_work_itself():
    ctx = multiprocessing.get_context('fork')
    q = ctx.Queue()
    p = ctx.Process(target=lambda: q.put(len(plain(n_workers=2)(['a']*300))), daemon=True)
    p.start()
    assert q.get(timeout=60) == 300
    p.join()

def test_the_bar_shows_for_long_runs_only(capsys, monkeypatch):
    list(minidl.text._with_bar(iter('abc'), 3))
    assert capsys.readouterr().out == ''
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(minidl.text.time, 'perf_counter', lambda: next(clock))
    assert ''.join(minidl.text._with_bar(iter('abc'), 3)) == 'abc'


# The cache on disk

LONG = ['A rather long text, again. '*40 + f'Number {i}' for i in range(300)]

def test_a_second_run_is_read_from_disk(cache, monkeypatch):
    tokens = Tokenizer(tok='regex')(LONG)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(minidl.text, '_tokenize', None)     # whoever tokenizes now fails
    assert Tokenizer(2, tok='regex')(LONG) == tokens
    assert plain(cache=True)([*LONG]).table == tokens.table

def test_short_runs_and_those_without_a_cache_write_nothing(cache):
    plain(cache=True)(['short'])
    plain()(LONG)
    assert not cache.exists()

def test_another_text_rule_or_setting_finds_nothing_of_the_old(cache, monkeypatch):
    n = lambda: len(list(cache.iterdir()))
    variants = [(dict(), LONG), (dict(), LONG[:-1] + ['x']), (dict(), LONG[::-1]),
                (dict(pre_rules=PRE_RULES[:-1]), LONG),
                (dict(errors='replace'), LONG), (dict(lang='de'), LONG), (dict(), [LONG[0] + LONG[1], *LONG[2:]])]
    for i, (how, texts) in enumerate(variants, 1):
        plain(cache=True, **how)(texts)
        assert n() == i
    monkeypatch.setitem(minidl.text.REGISTRY, 'sub_br', fixup_text)      # the same name, another source
    plain(cache=True)(LONG)
    assert n() == len(variants) + 1

def test_files_are_found_by_content_and_not_by_name(cache, tmp_path):
    paths = [tmp_path/f'{i}.txt' for i in range(300)]
    for p, t in zip(paths, LONG): p.write_text(t, encoding='utf-8')
    tok = plain(cache=True)
    before = tok(paths)
    paths[7].write_text(LONG[7].replace('rather', 'pretty'), encoding='utf-8')
    assert 'pretty' in tok(paths)[7] and 'pretty' not in before[7]

STOP, PATTERN, TABLE = {'again'}, re.compile('rather'), {'text': ['rather']}
def stopped(t): return t in STOP

@register_tfm
def by_a_set(tokens): return [t for t in tokens if t not in STOP]
@register_tfm
def by_a_helper(tokens): return [t for t in tokens if not stopped(t)]
@register_tfm
def by_a_pattern(tokens): return [t for t in tokens if not PATTERN.fullmatch(t)]
@register_tfm
def by_a_table(tokens): return [t for t in tokens if t not in TABLE['text']]

@pytest.mark.parametrize('cached', [True, False])
@pytest.mark.parametrize('rule, change', [
    (by_a_set, dict(STOP={'again', 'text'})), (by_a_helper, dict(STOP={'again', 'text'})),
    (by_a_helper, dict(stopped=lambda t: t == 'text')), (by_a_pattern, dict(PATTERN=re.compile('text'))),
    (by_a_table, dict(TABLE={'text': ['rather', 'text']}))])
def test_a_rule_that_looks_at_something_else_now_gives_other_tokens(rule, change, cached, monkeypatch):
    tok = plain(cache=cached, post_rules=[deal_caps, rule])
    assert 'text' in tok(LONG)[7] and tok(LONG)[7] == tok.tokenize(LONG[7])
    for name, new in change.items(): monkeypatch.setitem(globals(), name, new)
    assert 'text' not in tok(LONG)[7] and tok(LONG)[7] == tok.tokenize(LONG[7])

def test_a_set_that_grows_is_seen_by_words_and_workers(monkeypatch):
    monkeypatch.setitem(globals(), 'STOP', {'again'})
    tok = plain(n_workers=2, post_rules=[by_a_set])
    assert 'rather' in tok(LONG)[7]
    STOP.add('rather')
    assert 'rather' not in tok(LONG)[7]
    tok.close()

def test_rules_of_one_source_made_with_other_arguments_are_told_apart(cache):
    def closed(word):
        def drop(tokens): return [t for t in tokens if t != word]
        return drop
    def default(word):
        def drop(tokens, word=word): return [t for t in tokens if t != word]
        return drop
    for make in closed, default:
        for word in 'text', 'rather':
            tokens = plain(cache=True, post_rules=[deal_caps, register_tfm(make(word))])(LONG)[7]
            assert {'text', 'rather'} - set(tokens) == {word}

AT_A_PROMPT = """
from minidl.data import register_tfm
from minidl.text import Tokenizer
for word in 'cat', 'mat':
    exec(f"@register_tfm\\ndef no(t): return t.replace({word!r}, 'dog')")
    print(*Tokenizer(tok='regex', pre_rules=[no])(['the cat on the mat '*20]*600)[0][1:6])

"""

def test_rules_typed_at_a_prompt_and_methods_of_python_work_and_keep_nothing(cache):
    out = subprocess.run([sys.executable, '-'], input=AT_A_PROMPT, capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ['the dog on the mat', 'the cat on the dog'] and not cache.exists()
    register_tfm(str.casefold)
    assert 'a rather' in ' '.join(plain(cache=True, pre_rules=[str.casefold], post_rules=[])(LONG)[7])
    assert not cache.exists()

def test_the_name_in_the_cache_is_the_same_in_every_process(cache):
    code = """import test_text
from test_text import *
test_text.STOP = set('abcdefgh')
plain(cache=True, post_rules=[by_a_set, by_a_helper, by_a_pattern, by_a_table])(LONG)"""
    for seed in '0', '1':       # of the order of sets
        env = os.environ | dict(PYTHONHASHSEED=seed, PYTHONPATH=str(Path(__file__).parent))
        subprocess.run([sys.executable, '-c', code], check=True, env=env)
    assert len(list(cache.iterdir())) == 1

def test_a_rule_may_call_itself_and_what_calls_it(monkeypatch):
    def even(t): return t if len(t) < 2 else odd(t[1:])
    def odd(t): return even(t[1:])
    for rule in even, odd:
        monkeypatch.setitem(minidl.text.REGISTRY, rule.__name__, rule)
        assert plain(pre_rules=[rule])(['abcde']) and minidl.text._rule(rule) != rule

@pytest.mark.parametrize('how', ['cut', 'empty', 'flipped', 'other'])
def test_a_damaged_cache_file_is_told_and_written_again(cache, how):
    tokens = plain(cache=True)(LONG)
    file, = cache.iterdir()
    data = bytearray(file.read_bytes())
    if how == 'cut': data = data[:-100]
    if how == 'empty': data = b''
    if how == 'flipped': data[-3] ^= 1
    if how == 'other': data = b'{"not": "safetensors"}'
    file.write_bytes(data)
    with pytest.warns(UserWarning, match='is damaged'): assert plain(cache=True)(LONG) == tokens
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert plain(cache=True)(LONG) == tokens

def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path/'file').write_text('in the way')
    monkeypatch.setenv('MINIDL_CACHE', str(tmp_path/'file'))
    with pytest.warns(UserWarning, match='could not be kept'): tokens = plain(cache=True)(LONG)
    assert len(tokens) == len(LONG)

def test_a_full_disk_leaves_nothing_half_written(cache, monkeypatch):
    def full(own, *args):
        own.parent.mkdir(parents=True)
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(minidl.text, 'write_tensors', full)
    with pytest.warns(UserWarning, match='No space left'): plain(cache=True)(LONG)
    assert not list(cache.iterdir())

def kept_file(texts, cache):
    "The file of the cache that holds the tokens of `texts`."
    plain(cache=True)(texts)
    return max(cache.iterdir(), key=lambda file: file.stat().st_mtime_ns)

def test_the_cache_keeps_what_was_used_last(cache, monkeypatch):
    files = []
    for day in range(3):
        files.append(kept_file(LONG[day:], cache))
        os.utime(files[day], (day, day))
    assert kept_file(LONG, cache) == files[0]        # read, so it is as good as new
    killed = cache/f'1-{files[0].name}.-1.part'
    killed.write_bytes(b'half of it')
    os.utime(killed, (0, 0))
    monkeypatch.setattr(minidl.text._make_room, '__defaults__', (int(2.5*files[0].stat().st_size),))
    new = kept_file(LONG[3:], cache)
    assert set(cache.iterdir()) == {files[0], new}
    monkeypatch.setattr(minidl.text._make_room, '__defaults__', (0,))
    new = kept_file(LONG[4:], cache)
    assert set(cache.iterdir()) == {new}        # at least what has just been made

def test_tokens_that_vanish_while_they_are_looked_for_are_made_again(cache, monkeypatch):
    def gone(file): raise FileNotFoundError(file)
    tokens = plain(cache=True)(LONG)
    monkeypatch.setattr(minidl.text, 'read_tensors', gone)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert plain(cache=True)(LONG) == tokens


# Ragged arrays and numbers

@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=8), st.data())
def test_a_ragged_array_reads_like_the_list_of_lists_that_it_holds(lists, data):
    ragged = Ragged.from_arrays(lists)
    pick = data.draw(st.lists(st.integers(0, len(lists) - 1)))
    assert ragged == lists and ragged.lengths.tolist() == [len(o) for o in lists]
    assert ragged.take(pick) == [lists[i] for i in pick]
    a, b = data.draw(st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
    assert ragged[a:b] == lists[a:b] and ragged[-1].tolist() == lists[-1]
    with pytest.raises(IndexError): ragged[len(lists)]
    assert ragged.take([i - len(lists) for i in pick]) == [lists[i] for i in pick]
    mask = data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists)))
    for chosen in mask, np.array(mask): assert ragged.take(chosen) == [o for o, m in zip(lists, mask) if m]
    for beyond in len(lists), -len(lists) - 1:
        with pytest.raises(IndexError): ragged.take([beyond])

def test_numbers_take_two_bytes_where_they_fit_and_four_where_not():
    few = Numericalizer()(TokenLists.from_lists([['a', 'a', 'b']]))
    assert few.flat.dtype == np.uint16
    many = [[f'w{i}' for i in range(70_000)]]*2
    num = Numericalizer(max_vocab=80_000)
    ids = num(many)
    assert ids.flat.dtype == np.int32 and num.decode(ids[0]) == many[0]
    assert ids.flat.max() == len(num.vocab) - 1 == 70_007

def test_the_vocabulary_comes_from_the_first_call_by_frequency_and_alphabet():
    num = Numericalizer(min_freq=2)
    ids = num([['b', 'a', 'c', 'xxmaj'], ['a', 'b', 'd', 'd', 'd']])
    assert num.vocab == SPECIAL_TOKENS + ['d', 'a', 'b']
    assert ids[0].tolist() == [10, 9, UNK_ID, 7]
    assert num([['c', 'd']])[0].tolist() == [UNK_ID, 8] and len(num.vocab) == 11
    assert Numericalizer(max_vocab=9)([['a', 'a', 'b', 'b', 'b']])[0].tolist() == [0, 0, 8, 8, 8]

@pytest.mark.parametrize('how, words', [
    (dict(vocab=['a', 'b']), 'begins with a, b'), (dict(vocab=[]), 'begins with'),
    (dict(vocab=SPECIAL_TOKENS[::-1]), 'another version'), (dict(vocab=SPECIAL_TOKENS + ['a', 'a']), 'twice'),
    (dict(max_vocab=7), 'less than the 8 special')])
def test_a_vocabulary_that_cannot_be_meant_is_told(how, words):
    with pytest.raises(ValueError, match=words): Numericalizer(**how)

@pytest.mark.parametrize('ids', [[0, 8], [-1], torch.tensor([70_000])])
def test_a_number_beyond_the_vocabulary_is_told(ids):
    with pytest.raises(ValueError, match='vocabulary has 8 tokens'): Numericalizer(vocab=SPECIAL_TOKENS).decode(ids)

def test_texts_that_skipped_the_tokenizer_are_told():
    with pytest.raises(TypeError, match='put a Tokenizer before'): Numericalizer()(['a text', 'b'])
    for nothing in [], [[]]:
        with pytest.raises(ValueError, match='no tokens to learn'): Numericalizer()(nothing)

def test_a_numericalizer_goes_through_json():
    num = Numericalizer()
    num([['a', 'a', 'b', 'b']])
    assert make_tfm(json.loads(json.dumps(tfm_spec(num)))) == num


# The language model's stream

lengths_bs_bptt = given(st.lists(st.integers(0, 12), min_size=1, max_size=20), st.integers(1, 9), st.integers(1, 9),
                        st.booleans())

def loader_or_sentence(ids, bs, bptt, **how):
    if sum(map(len, ids)) < 2:
        with pytest.raises(ValueError, match='too few'): LMLoader(ids, bs, bptt, **how)
        return None
    return LMLoader(ids, bs, bptt, **how)

@settings(max_examples=200)
@lengths_bs_bptt
def test_the_stream_loses_no_token_and_doubles_none(lengths, bs, bptt, shuffle):
    ids = arrays(lengths)
    if (dl := loader_or_sentence(ids, bs, bptt, shuffle=shuffle, seed=3)) is None: return
    for epoch in range(2):
        stream = np.concatenate([ids[i] for i in dl.order(epoch).tolist()])
        got = batches(dl)
        assert len(got) == len(dl)
        rows_x, rows_y = read_rows(got, 0), read_rows(got)
        assert torch.cat(rows_x).tolist() == stream[:-1].tolist()
        assert torch.cat(rows_y).tolist() == stream[1:].tolist()
        sizes = [len(r) for r in rows_x]
        assert set(sizes[:-1]) <= {max(sizes)} and max(sizes) - sizes[-1] < bs
        assert all(x.shape == y.shape and x.shape[1] <= bptt and x.is_contiguous() and x.dtype == torch.int64
                   for x, y in got)
        n_rows = [len(x) for x, _ in got]
        assert n_rows == sorted(n_rows, reverse=True) and set(n_rows) <= {dl.rows, dl.rows - 1}
        assert dl.rows == min(bs, -(-(len(stream) - 1)//dl.n_columns)) and dl.n_columns == -(-(len(stream) - 1)//bs)
    assert sorted(stream) == sorted(np.concatenate(ids))

@settings(max_examples=100)
@lengths_bs_bptt
def test_going_on_in_the_middle_of_an_epoch_gives_the_rest_of_it(lengths, bs, bptt, shuffle):
    if (dl := loader_or_sentence(arrays(lengths), bs, bptt, shuffle=shuffle)) is None: return
    batches(dl)
    second = batches(dl)
    for skip in range(len(dl) + 1):
        dl.set_epoch(1, skip)
        assert same(batches(dl), second[skip:])
    with pytest.raises(ValueError, match='skip'): dl.set_epoch(0, len(dl) + 1)

@settings(max_examples=100)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=20), st.integers(2, 5), st.integers(1, 9), st.integers(1, 3))
def test_the_shares_of_several_processes_are_the_rows_of_one_large_batch(lengths, bs, bptt, n_ranks):
    ids = arrays(lengths)
    if (whole := loader_or_sentence(ids, bs*n_ranks, bptt, shuffle=True)) is None: return
    dl = LMLoader(ids, bs, bptt, shuffle=True)
    if n_ranks > 1 and whole.rows < bs*n_ranks:        # each process has to have as many
        with pytest.raises(ValueError, match='too few'): share_train(dl, 0, n_ranks)
        return
    shares = [batches(share_train(dl, r, n_ranks)) for r in range(n_ranks)]
    joined = [tuple(torch.cat(parts) for parts in zip(*bs)) for bs in zip(*shares)]
    assert same(joined, batches(whole))

def test_a_stream_of_any_length_can_be_read_in_64_rows():
    for n in 2, 64, 65, 66, 1001, 2945, 2946, 4000:
        got = batches(dl := LMLoader([np.arange(n)], 64, 70))
        assert torch.cat(read_rows(got)).tolist() == list(range(1, n)) and len(got) == len(dl)
    assert LMLoader([np.arange(1001)], 64, 70).rows == 63

def test_rows_go_on_in_the_next_batch():
    got = batches(LMLoader(arrays([50, 3, 40]), 4, 7))
    for (_, y), (x, _) in zip(got, got[1:]): assert torch.equal(x[:, 0], y[:len(x), -1])

def test_epochs_differ_and_depend_on_seed_and_epoch_alone():
    make = lambda seed: LMLoader(arrays([5, 9, 4, 7, 6, 8]), 3, 4, shuffle=True, seed=seed)
    dl = make(0)
    first, second = batches(dl), batches(dl)
    assert not same(first, second) and same(first, batches(make(0))) and not same(first, batches(make(1)))
    assert same(batches(dl.ordered()), batches(LMLoader(dl.ids, 3, 4)))
    assert same(batches(in_order(dl)), batches(dl.ordered()))
    dl.set_epoch(1)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert same(second, batches(pickle.loads(pickle.dumps(dl)))) and torch.equal(state, torch.get_rng_state())

def test_a_look_at_one_batch_does_not_use_up_an_epoch():
    dls = DataLoaders(LMLoader(arrays([30, 30]), 3, 4, shuffle=True))
    xb, yb = dls.one_batch()
    assert torch.equal(xb, dls.one_batch()[0]) and torch.equal(xb, batches(dls.train)[0][0])

@pytest.mark.parametrize('how, words', [(dict(bs=0, bptt=3), 'batch size'), (dict(bs=2, bptt=0), 'bptt'),
                                        (dict(bs=9, bptt=3, n_ranks=2), 'too few'),
                                        (dict(bs=1, bptt=3, n_ranks=2), 'two rows')])
def test_a_stream_that_cannot_be_cut_is_told(how, words):
    with pytest.raises(ValueError, match=words): LMLoader(arrays([12]), **how)
    with pytest.raises(ValueError): LMLoader([], 1, 1)
    with pytest.raises(ValueError, match='too few'): LMLoader([[5]], 1, 1)

def lm_dls(some, **how):
    proc_x = [plain(), Numericalizer()]
    return label_for_lm(SplitData.split_random(TextList(some), 0.1), proc_x).to_dls(**{'bs': 8, 'bptt': 20} | how)

def test_a_language_models_loaders_have_vocabulary_and_readable_batches(some, capsys):
    dls = lm_dls(some)
    assert dls.vocab == text_vocab(dls) and dls.c_out == len(dls.vocab) and dls.vocab[:8] == SPECIAL_TOKENS
    dls.show_batch(n=3)
    shown = capsys.readouterr().out.strip().splitlines()
    assert len(shown) == 3 and 'xxmaj' not in ''.join(shown)
    x, y = dls.decode(dls.one_batch(), n=2)[0]
    assert isinstance(x, str) and x.split()[3:6] == y.split()[2:5] or x.split()[3:6] == y.split()[3:6] or x != y
    new = dls.test_dl(['A new text about a film.', 'Another one.'], bs=1, bptt=5)
    tokens = plain()(['A new text about a film.', 'Another one.'])
    assert torch.cat([y for _, y in new], 1).shape[1] == sum(map(len, tokens)) - 1
    (x, y), = dls.test_dl(['A new text about a film. '*40])
    assert x.shape == y.shape and x.shape[1] > 200          # a text alone is one batch
    with pytest.raises(TypeError, match='list of texts, and got one'): dls.test_dl('A new text')
    with pytest.raises(TypeError, match='list of texts, and got one'): dls.test_dl(Path('a.txt'))
    with pytest.raises(ValueError, match='no texts'): dls.test_dl([])
    pipe = make_tfm(json.loads(json.dumps(dict(name=dls.pipe.spec['name'], settings=dls.pipe.spec['kwargs']))))
    assert type(pipe) is type(dls.pipe) and pipe.vocab == dls.vocab

def test_a_tenth_is_held_out_and_the_vocabulary_is_that_of_the_rest(some):
    sd = SplitData.split_random(TextList(some), 0.1)
    ll = label_for_lm(sd, [plain(), Numericalizer(min_freq=1)])
    assert len(ll.valid) == 20 and len(ll.train) == 180
    vocab = ll.proc_x[1].vocab
    assert set(vocab) == set(SPECIAL_TOKENS) | {t for tokens in plain()(sd.train.items) for t in tokens}
    with pytest.raises(ValueError, match='no training texts'): label_for_lm(SplitData(TextList([])))


# A classifier's batches

def test_batches_are_padded_before_or_after_and_know_the_lengths():
    samples = [(torch.tensor([2, 9, 3]), torch.tensor(0)), (torch.tensor([2, 9, 9, 8, 3]), torch.tensor(1))]
    (ids, lengths), yb = pad_collate(samples)
    assert ids.tolist() == [[1, 1, 2, 9, 3], [2, 9, 9, 8, 3]] and lengths.tolist() == [3, 5] and yb.tolist() == [0, 1]
    (ids, _), _ = pad_collate(samples, pad_idx=0, pad_first=False)
    assert ids.tolist() == [[2, 9, 3, 0, 0], [2, 9, 9, 8, 3]] and ids.dtype == torch.int64
    (ids, lengths), = pad_collate([(torch.tensor([], dtype=torch.int64),), (torch.tensor([4]),)])
    assert ids.tolist() == [[1], [4]] and lengths.tolist() == [0, 1]
    with pytest.raises(TypeError, match='got texts'): pad_collate([('a text', 0)])

@settings(max_examples=100)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 5))
def test_every_text_is_in_one_batch_and_the_longest_batch_comes_first(lengths, bs, epoch):
    for shuffle in True, False:
        order = LengthBatches(lengths, bs, shuffle).order(epoch)
        assert order.sort().values.tolist() == list(range(len(lengths)))
        full = [max(lengths[i] for i in b) for b in order.split(bs) if len(b) == bs]
        assert not full or full[0] == max(full)
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)

def test_sorting_with_noise_saves_padding_and_still_changes_neighbors():
    lengths = torch.randint(10, 500, (1000,), generator=torch.Generator().manual_seed(0))
    waste = lambda order: 1 - lengths.sum()/sum(len(b)*lengths[b].max() for b in order.split(32))
    noisy = [LengthBatches(lengths, 32, True).order(e) for e in range(2)]
    for o in noisy: assert waste(o) < 0.5*waste(torch.randperm(1000, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(*noisy)
    partners = lambda o: {frozenset(p.tolist()) for b in o.split(32) for p in torch.combinations(b)}
    assert len(partners(noisy[0]) & partners(noisy[1])) < 0.7*len(partners(noisy[0]))

def test_drop_last_can_leave_out_any_text():
    dropped = {int(i) for e in range(40) for i in LengthBatches(range(1, 12), 4, True).order(e)[8:]}
    assert dropped == set(range(11))

@pytest.fixture(scope='module')
def split(files):
    chosen = [f for f in files if 'unsup' not in f.parts][::4]
    return SplitData.split_by_func(TextList(chosen), lambda f: grandparent_splitter(f, 'test'))

def clas(split, bs=16, proc=None, **how):
    return label_by_func(split, parent_labeler, proc_x=proc or [plain(), Numericalizer()]).to_dls(bs, **how)

def test_the_data_block_gives_ids_lengths_and_classes(split):
    dls = clas(split)
    assert isinstance(dls.train.dataset.x.items, Ragged)
    for dl in dls.train, dls.valid:
        for (ids, lengths), yb in dl:
            assert ids.shape == (len(yb), lengths.max()) and torch.equal((ids != PAD_ID).sum(1), lengths)
    lengths = [l for (_, n), _ in dls.valid for l in n.tolist()]
    assert lengths == sorted(lengths, reverse=True)
    assert dls.vocab == ['neg', 'pos'] and text_vocab(dls)[:8] == SPECIAL_TOKENS
    x, label = dls.decode(dls.one_batch(), n=1)[0]
    assert 'xxbos' not in x and 'xxpad' not in x and label in dls.vocab

def test_unlabeled_items_keep_their_order_and_predictions_come_in_item_order(split):
    dls = clas(split)
    learn = Learner(bag(len(text_vocab(dls))), dls, F.cross_entropy, progress=False, device='cpu')
    texts = ['a long text of many words, and it goes on', 'short', 'two words']
    assert [int(n) for (_, lengths), in dls.test_dl(texts, bs=2) for n in lengths] == [len(t) for t in plain()(texts)]
    preds, targs = learn.get_preds()
    assert torch.equal(targs, dls.valid.dataset.y)
    alone = torch.cat([learn.get_preds(dls.test_dl([f]))[0] for f in split.valid.items[:5]])
    torch.testing.assert_close(preds[:5], alone)

@pytest.mark.parametrize('num_workers', [0, 2])
def test_worker_processes_change_no_batch(split, num_workers):
    how = dict(multiprocessing_context='spawn') if num_workers else {}
    a, b = clas(split), clas(split, num_workers=num_workers, **how)
    for _ in range(2):
        for ((i, n), y), ((j, m), z) in zip(a.train, b.train, strict=True):
            assert torch.equal(i, j) and torch.equal(n, m) and torch.equal(y, z)

def test_a_share_of_a_training_loader_is_balanced_in_length(split):
    dls = clas(split, bs=4)
    shares = [share_train(dls.train, r, 2) for r in range(2)]
    for ((_, n), y), ((_, m), z) in zip(*shares): assert abs(n.max() - m.max()) <= 0.25*n.max() or len(n) < 4
    seen = [i for s in shares for b in s.batch_sampler for _, i in b]
    assert len(set(seen)) == len(dls.train.dataset)

def test_a_missing_label_is_told_with_the_file(files):
    unsup = [f for f in files if 'unsup' in f.parts][:3]
    sd = SplitData(TextList([f for f in files if f.parent.name == 'pos'][:3] + unsup))
    with pytest.raises(ValueError, match=unsup[0].name):
        label_by_func(sd, lambda f: None if f.parent.name == 'unsup' else f.parent.name,
                      proc_x=[plain(), Numericalizer()])

def test_texts_without_processors_are_told(split):
    with pytest.raises(TypeError, match='Numericalizer'): label_by_func(split, parent_labeler).to_dls(4)
    with pytest.raises(ValueError, match='no vocabulary of texts'): text_vocab(DataLoaders([], pipe=Pipe(TextList([]))))
    assert split.train.get(0) == split.train.items[0].read_text(encoding='utf-8')

def test_texts_come_from_a_table_too(tmp_path):
    table = dict(review=['Good film.', 'Bad film.', 'So so.', 'Great!']*5, verdict=['pos', 'neg', 'neg', 'pos']*5)
    il = TextList.from_df(table, col='review')
    dls = label_by_col(SplitData.split_random(il, 0.2), 'verdict', proc_x=[plain(), Numericalizer()]).to_dls(4)
    assert dls.vocab == ['neg', 'pos'] and len(dls.train.dataset) == 16
    with pytest.raises(ValueError, match='no column'): TextList.from_df(table, col='text')
    with pytest.raises(ValueError, match='no rows'): TextList.from_df(dict(a=[], b=[]))
    (tmp_path/'labels.csv').write_text('text,label\n"Good, really",pos\nBad,neg\n', encoding='utf-8')
    assert TextList.from_csv(tmp_path).items == ['Good, really', 'Bad']


# Learners

def train(learn, path=None, stop=None, epochs=2, **how):
    class Stop(Callback):
        order = 95
        def after_batch(self, learn):
            if learn.training and (learn.epoch, learn.iter) == stop: raise KeyboardInterrupt
    cbs = [Checkpoint(path, monitor=None, every=3)] if path else []
    try: learn.fit(epochs, cbs=cbs + [Stop()], **how)
    except KeyboardInterrupt: pass
    return [p.detach().clone() for p in learn.model.parameters()]

@pytest.mark.parametrize('kind', ['lm', 'classifier'])
def test_a_run_stopped_in_the_middle_of_an_epoch_goes_on_to_the_same_weights(kind, some, split, tmp_path):
    def make():
        dls = lm_dls(some) if kind == 'lm' else clas(split)
        n = len(text_vocab(dls))
        model, loss = (next_token(n), lm_cross_entropy) if kind == 'lm' else (bag(n), F.cross_entropy)
        return Learner(model, dls, loss, lr=1e-2, progress=False, device='cpu')
    straight = train(make())
    train(make(), tmp_path, stop=(1, 7))
    resumed = train(make(), tmp_path/'more', resume=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed))

def test_an_exported_classifier_reads_raw_strings(split, tmp_path):
    dls = clas(split)
    learn = Learner(bag(len(text_vocab(dls))), dls, F.cross_entropy, metrics=accuracy, progress=False, device='cpu')
    learn.fit(1, 1e-2)
    learn.export(tmp_path/'model.safetensors')
    again = load_learner(tmp_path/'model.safetensors')
    for text in 'A GREAT film!!!!!', '', 'x':
        a, b = learn.predict(text), again.predict(text)
        assert a.label == b.label and torch.allclose(a.probs, b.probs)
    assert text_vocab(again.dls) == text_vocab(dls)

SCRIPT = '''
import sys, torch
sys.path.insert(0, {tests!r})
from test_text import *
from minidl.scale import Distributed
def run(kind, bs):
    texts = [f'Film number {{i}} is ' + 'very '*(i % 7) + ('good' if i % 2 else 'bad') for i in range(60)]
    if kind == 'lm':
        dls = label_for_lm(SplitData(TextList(texts)), [plain(), Numericalizer()]).to_dls(bs, 5)
        model, loss_func = next_token(len(text_vocab(dls))), lm_cross_entropy
    else:
        il = TextList.from_df(dict(t=texts, y=['ab'[i % 2] for i in range(60)]))
        dls = label_by_col(SplitData(il), 'y', proc_x=[plain(), Numericalizer()]).to_dls(bs)
        model, loss_func = bag(len(text_vocab(dls))), F.cross_entropy
    learn = Learner(model, dls, loss_func, torch.optim.SGD, lr=0.1, cbs=Distributed(), progress=False, device='cpu')
    learn.fit(2)
    return [p.detach() for p in learn.model.parameters()], learn.recorder.losses
found = {{k: run(k, int(sys.argv[1])) for k in ('lm', 'clas')}}
if int(os.environ.get('RANK') or 0) == 0: torch.save(found, sys.argv[2])
'''

def test_two_processes_make_the_steps_of_one_with_twice_the_batch(tmp_path):
    script = tmp_path/'ranks.py'
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    launch(script, 2, 4, tmp_path/'two.pt')
    subprocess.run([sys.executable, script, '8', tmp_path/'one.pt'], check=True, capture_output=True)
    one, two = (torch.load(tmp_path/f'{n}.pt', weights_only=False) for n in ('one', 'two'))
    for kind in one:
        for a, b in zip(one[kind][0], two[kind][0], strict=True): torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
