"ULMFiT: an encoder finds its way into another vocabulary, and a verdict on a text depends on that text alone."
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from minidl.awd_lstm import get_language_model
from minidl.data import SplitData, label_by_col, label_by_func
from minidl.datasets import set_seed
from minidl.fp16 import AMP, MixedPrecision
from minidl.learner import load_learner, read_tensors, write_tensors
from minidl.text import (EOS, PAD_ID, SPECIAL_TOKENS, UNK_ID, Numericalizer, TextList, Tokenizer, label_for_lm,
                         pad_collate, text_vocab)
from minidl.ulmfit import (Backwards, TextBatchNorm, classifier_splitter, encoder_sizes, generate, get_text_classifier,
                           lm_learner, load_encoder, match_vocab, read_encoder, save_encoder, shift_left, show_effects,
                           take_rows, text_classifier_learner, token_effects, unfreeze_gradually)

SIZES = dict(emb_sz=12, n_hid=16, n_layers=2)
GOOD = ['a good film', 'what a fine story', 'truly great fun']
BAD = ['a bad film', 'what a poor story', 'truly dull stuff']
TEXTS = [(f'{a} , {b} .', label) for label, kind in (('pos', GOOD), ('neg', BAD)) for a in kind for b in kind
         for _ in range(3)]


def lists(proc_x=None, texts=TEXTS):
    il = TextList([t for t, _ in texts], table={'y': [y for _, y in texts]})
    return SplitData.split_random(il, 0.25), proc_x or [Tokenizer(tok='regex'), Numericalizer(min_freq=1)]


def lm_dls(proc_x=None, bs=4, bptt=6): return (lambda sd, p: label_for_lm(sd, p).to_dls(bs, bptt))(*lists(proc_x))


def text_dls(proc_x=None, bs=8):
    sd, proc_x = lists(proc_x)
    labels = dict(TEXTS)
    return label_by_func(sd, labels.get, proc_x=proc_x).to_dls(bs=bs)


@pytest.fixture
def lm():
    set_seed(0)
    return lm_learner(lm_dls(), SIZES, progress=False, device='cpu')


@pytest.fixture
def encoder_file(lm, tmp_path): return save_encoder(tmp_path/'lm.safetensors', lm)


def small_classifier(bptt=5, max_len=10**9, n_layers=2, **kwargs):
    set_seed(0)
    return get_text_classifier(50, 3, 12, 16, n_layers, bptt, max_len, 7, **kwargs)


def some_texts(lengths, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(8, 50, (n,), generator=g) for n in lengths]


def batch(texts, pad_first=True): return pad_collate([(t,) for t in texts], pad_first=pad_first)[0]


# Files with an encoder

def test_an_encoder_comes_back_with_its_vocabulary_and_sizes(lm, encoder_file):
    weights, vocab = read_encoder(encoder_file)
    assert vocab == text_vocab(lm.dls) and encoder_sizes(weights) == SIZES
    for k, t in lm.model.state_dict().items(): assert torch.equal(weights[k], t)


def test_a_file_that_is_damaged_or_foreign_is_a_sentence(encoder_file, tmp_path):
    whole = encoder_file.read_bytes()
    for cut in (0, 7, 100, len(whole) - 10):
        (tmp_path/'cut').write_bytes(whole[:cut])
        with pytest.raises(ValueError, match='no whole safetensors file'): read_encoder(tmp_path/'cut')
    for info in (None, 3, {}, dict(kind='language model', version=2), dict(model=None, pipe=None)):
        write_tensors(tmp_path/'other', {'w': torch.zeros(2)}, info)
        with pytest.raises(ValueError, match='Write it with save_encoder'): read_encoder(tmp_path/'other')
    with pytest.raises(FileNotFoundError): read_encoder(tmp_path/'none')


def test_other_special_tokens_are_refused_and_so_is_a_vocabulary_of_another_length(encoder_file, tmp_path):
    weights, info = read_tensors(encoder_file)
    write_tensors(tmp_path/'a', weights, info | dict(special=['<unk>', '<pad>']))
    with pytest.raises(ValueError, match='special tokens <unk> <pad>, and here they are xxunk xxpad'):
        read_encoder(tmp_path/'a')
    write_tensors(tmp_path/'b', weights, info | dict(vocab=info['vocab'][:-1]))
    with pytest.raises(ValueError, match='it should have one for each'): read_encoder(tmp_path/'b')


def test_a_failed_write_leaves_the_old_file(lm, encoder_file, monkeypatch):
    import safetensors.torch
    before = encoder_file.read_bytes()
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(safetensors.torch, 'save_file', full)
    with pytest.raises(OSError): save_encoder(encoder_file, lm)
    assert encoder_file.read_bytes() == before
    assert [p.name for p in encoder_file.parent.iterdir()] == [encoder_file.name]


def test_only_a_language_model_is_saved_so(tmp_path):
    learn = text_classifier_learner(text_dls(), SIZES, progress=False)
    with pytest.raises(TypeError, match='language model'): save_encoder(tmp_path/'x', learn)


# Another vocabulary

def test_rows_follow_their_tokens_and_strangers_get_the_mean(encoder_file, capsys):
    weights, old = read_encoder(encoder_file)
    new = SPECIAL_TOKENS + ['stranger', *reversed(old[8:]), 'another']
    model = get_language_model(len(new), **SIZES)
    share = load_encoder(model, encoder_file, new)
    assert share == pytest.approx(len(old)/len(new)) and f'{share:.0%}' in capsys.readouterr().out
    emb, bias = model.encoder.embed.emb.weight, model.decoder.linear.bias
    for t in old:
        assert torch.equal(emb[new.index(t)], weights['encoder.embed.emb.weight'][old.index(t)])
        assert bias[new.index(t)] == weights['decoder.linear.bias'][old.index(t)]
    for t in ('stranger', 'another'):
        torch.testing.assert_close(emb[new.index(t)], weights['encoder.embed.emb.weight'].mean(0))
        torch.testing.assert_close(bias[new.index(t)], weights['decoder.linear.bias'].mean())
    assert model.decoder.linear.weight is emb
    assert torch.equal(model.encoder.rnns[1].lstm.weight_hh_l0, weights['encoder.rnns.1.lstm.weight_hh_l0'])


def test_the_same_tokens_in_another_order_are_predicted_alike(lm, encoder_file):
    old = text_vocab(lm.dls)
    new = SPECIAL_TOKENS + old[:7:-1]
    model = get_language_model(len(new), **SIZES).eval()
    load_encoder(model, encoder_file, new)
    ids = torch.tensor([[old.index(t) for t in ('xxbos', 'a', 'good', 'film')]])
    to_new = match_vocab(new, old)
    with torch.no_grad(): ours, theirs = model(to_new[ids])[0], lm.model.eval()(ids)[0]
    torch.testing.assert_close(ours[..., to_new], theirs)


def test_all_misfits_are_listed_and_nothing_is_half_loaded(encoder_file):
    model = get_language_model(30, 12, 20, 3)
    before = {k: t.clone() for k, t in model.state_dict().items()}
    with pytest.raises(ValueError) as e: load_encoder(model, encoder_file, [str(i) for i in range(30)])
    for part in ('rnns.0.lstm.weight_ih_l0', 'rnns.1.lstm.weight_ih_l0', 'rnns.2.lstm.weight_hh_l0', "'n_hid': 16",
                 'nothing was loaded'):
        assert part in str(e.value)
    for k, t in model.state_dict().items(): assert torch.equal(t, before[k])


def test_a_classifier_takes_the_encoder_and_leaves_its_head_alone(encoder_file):
    weights, vocab = read_encoder(encoder_file)
    model = get_text_classifier(len(vocab), 2, **SIZES)
    head = {k: t.clone() for k, t in model.head.state_dict().items()}
    load_encoder(model, encoder_file, vocab)
    assert all(torch.equal(t, head[k]) for k, t in model.head.state_dict().items())
    assert all(torch.equal(t, weights[f'encoder.{k}']) for k, t in model.encoder.state_dict().items())


def test_learners_take_the_sizes_of_the_file_and_refuse_the_wrong_loaders(encoder_file):
    assert lm_learner(lm_dls(), pretrained=encoder_file).model.encoder.rnns[0].lstm.hidden_size == 16
    learn = text_classifier_learner(text_dls(), dict(max_len=99), encoder=encoder_file)
    assert len(learn.model.encoder.rnns) == 2 and learn.model.max_len == 99
    with pytest.raises(TypeError, match='label_for_lm'): lm_learner(text_dls())
    with pytest.raises(TypeError, match='have no labels'): text_classifier_learner(lm_dls())
    with pytest.raises(ValueError, match='nothing was loaded'):
        text_classifier_learner(text_dls(), SIZES | dict(n_hid=99), encoder=encoder_file)


@pytest.mark.parametrize('tie', [True, False])
def test_weights_are_tied_as_in_the_file(tie, tmp_path):
    set_seed(0)
    lm = lm_learner(lm_dls(), SIZES | dict(tie_weights=tie), drop_mult=0., progress=False, device='cpu').fit(2, 1e-2)
    file = save_encoder(tmp_path/'lm.safetensors', lm)
    for config in None, dict(hidden_p=0.5), dict(tie_weights=False):
        again = lm_learner(lm_dls(), config, drop_mult=0., pretrained=file, progress=False, device='cpu')
        assert again.validate() == lm.validate()
        ties = again.model.decoder.linear.weight is again.model.encoder.embed.emb.weight
        assert ties == (tie and config != dict(tie_weights=False))


def test_weights_that_are_not_tied_are_not_read_into_one(tmp_path):
    lm = lm_learner(lm_dls(), SIZES | dict(tie_weights=False), progress=False, device='cpu')
    file = save_encoder(tmp_path/'lm.safetensors', lm)
    tied = get_language_model(len(text_vocab(lm.dls)), **SIZES)
    before = {k: t.clone() for k, t in tied.state_dict().items()}
    with pytest.raises(ValueError, match='other weights in its decoder.*tie_weights=False'):
        load_encoder(tied, file, text_vocab(lm.dls))
    for k, t in tied.state_dict().items(): assert torch.equal(t, before[k])
    load_encoder(get_text_classifier(len(text_vocab(lm.dls)), 2, **SIZES), file, text_vocab(lm.dls))


def test_missing_labels_are_named():
    sd, proc_x = lists()
    with pytest.raises(ValueError, match='has no label'): label_by_func(sd, lambda o: None, proc_x=proc_x)


# The classifier

LENGTHS = [1, 2, 4, 5, 6, 10, 11, 23, 9, 1, 17]


@pytest.mark.parametrize('max_len', [10**9, 10, 7, 5])
@pytest.mark.parametrize('pad_first', [True, False])
def test_a_text_alone_and_in_a_batch_gets_the_same_logits(max_len, pad_first):
    texts, model = some_texts(LENGTHS), small_classifier(max_len=max_len).eval()
    with torch.no_grad():
        together = model(*batch(texts, pad_first))
        alone = torch.cat([model(t[None], torch.tensor([len(t)])) for t in texts])
    assert (together - alone).abs().max() < 1e-6 and alone.std(0).min() > 1e-4


def test_more_pads_and_another_order_change_nothing():
    texts, model = some_texts(LENGTHS), small_classifier().eval()
    ids, lengths = batch(texts)
    more = torch.cat([torch.full((len(ids), 13), PAD_ID), ids], 1)
    order = torch.randperm(len(texts))
    with torch.no_grad():
        torch.testing.assert_close(model(more, lengths), model(ids, lengths), atol=1e-6, rtol=0)
        torch.testing.assert_close(model(ids[order], lengths[order]), model(ids, lengths)[order], atol=1e-6, rtol=0)


def test_the_pieces_add_up_to_one_reading_with_the_three_notes():
    texts, model = some_texts([23, 4]), small_classifier(bptt=5).eval()
    with torch.no_grad():
        outs = [model.encoder.encode(t[None])[0][0] for t in texts]
        notes = [torch.stack(o) for o in ([o[-1] for o in outs], [o.amax(0) for o in outs], [o.mean(0) for o in outs])]
        torch.testing.assert_close(model(*batch(texts)), model.head.layers(torch.cat(notes, 1)))


def test_max_len_changes_gradients_and_no_prediction():
    ids, lengths = batch(some_texts([23, 4, 12]))
    grads, logits = [], []
    for max_len in (10**9, 10):
        model = small_classifier(max_len=max_len, drop_mult=0.).train()
        logits.append(model(ids, lengths))
        logits[-1].square().sum().backward()
        grads.append(model.encoder.embed.emb.weight.grad)
    torch.testing.assert_close(*logits)
    used = [set(g.abs().sum(1).nonzero()[:, 0].tolist()) for g in grads]
    tail = {int(i) for row, n in zip(ids, lengths) for i in row[-min(int(n), 10):]}
    assert used[0] == set(ids.unique().tolist()) - {PAD_ID} and used[1] <= tail and used[1] < used[0]


def test_gradients_reach_as_many_whole_pieces_as_max_len_allows():
    model = small_classifier(bptt=5, max_len=10, drop_mult=0.).train()
    model(*batch([torch.arange(8, 31), torch.arange(31, 50)])).square().sum().backward()     # 23 and 19 tokens
    used = model.encoder.embed.emb.weight.grad.abs().sum(1).nonzero()[:, 0]
    assert used.tolist() == [*range(8 + 15, 31), *range(31 + 10, 50)]


def test_max_len_has_room_for_one_piece():
    with pytest.raises(ValueError, match='max_len=4 should be at least bptt=5'): small_classifier(bptt=5, max_len=4)


def test_gradients_under_autocast_reach_a_long_text_and_its_encoder():
    ids, lengths = batch(some_texts([40, 8]))
    grads = []
    for dtype in (None, torch.bfloat16):
        model = small_classifier(max_len=10, drop_mult=0.).train()
        with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
            loss = model(ids, lengths).float().square().sum()
        loss.backward()
        grads.append(model.encoder.rnns[0].lstm.weight_ih_l0.grad)
    assert grads[1] is not None and torch.nn.functional.cosine_similarity(*(g.flatten() for g in grads), dim=0) > 0.9


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_a_classifier_reads_in_any_precision(dtype):
    ids, lengths = batch(some_texts(LENGTHS))
    with torch.no_grad(): want, got = (m(ids, lengths) for m in (small_classifier().eval(),
                                                                 small_classifier().eval().to(dtype)))
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, atol=1e-6 if dtype == torch.float64 else 0.02, rtol=0)


def test_gradients_of_a_classifier_are_those_of_its_numbers():
    model = small_classifier(bptt=3, drop_mult=0.).double().eval()
    ids, lengths = batch(some_texts([7, 2]))
    def logits(w): return torch.func.functional_call(model, {'encoder.rnns.0.lstm.weight_hh_l0': w}, (ids, lengths))
    weight = model.encoder.rnns[0].lstm.weight_hh_l0.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(logits, weight, fast_mode=True)


def test_a_text_without_tokens_is_a_sentence_and_one_token_is_enough():
    model = small_classifier().eval()
    with pytest.raises(ValueError, match='has no tokens'): model(torch.full((2, 3), 9), torch.tensor([3, 0]))
    assert model(torch.tensor([[9]]), torch.tensor([1])).isfinite().all()


def test_a_batch_of_one_text_can_be_trained_on():
    norm = TextBatchNorm(4).train()
    out = norm(torch.randn(1, 4))
    assert out.isfinite().all() and norm.num_batches_tracked == 0
    torch.testing.assert_close(norm(x := torch.randn(8, 4)), nn.BatchNorm1d(4)(x))
    learn = text_classifier_learner(text_dls(bs=8), SIZES, progress=False, device='cpu')
    n = len(learn.dls.train.dataset)
    learn.dls = text_dls(bs=n - 1)
    learn.fit(1)
    assert np.isfinite(learn.recorder.values[-1]['train_loss'])


def test_rows_are_shifted_each_by_its_own_number():
    ids = torch.arange(8).view(2, 4)
    assert shift_left(ids, torch.tensor([1, 3])).tolist() == [[1, 2, 3, 3], [7, 7, 7, 7]]
    assert torch.equal(shift_left(ids, torch.tensor([0, 0])), ids)


def test_a_text_of_100_000_tokens_takes_no_more_memory_than_max_len_allows():
    code = textwrap.dedent('''
        import resource, torch
        from minidl.ulmfit import get_text_classifier
        torch.set_num_threads(1)
        model = get_text_classifier(1000, 2, 64, 64, 1, max_len=700).train()
        def step(n):
            ids = torch.randint(8, 1000, (2, n))
            model(ids, torch.tensor([n, 50])).sum().backward()
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        step(700); before = step(1400); print(step(100_000) - before)''')
    env = os.environ | dict(OMP_NUM_THREADS='1')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    print('MB more than for 1,400 tokens:', done.stdout)
    assert float(done.stdout) < 60      # kept for the backward pass it would be over 300


# Training, using, handing on

def test_the_groups_are_thawed_from_the_head_down_and_all_are_free_afterwards(encoder_file):
    learn = text_classifier_learner(text_dls(), encoder=encoder_file, progress=False, device='cpu')
    groups = [list(g.parameters()) for g in classifier_splitter(learn.model)]
    assert len(groups) == 4 and sum(map(len, groups)) == len(list(learn.model.parameters()))
    seen = []
    class Watch:
        def after_step(self, learn):
            seen.append(([any(p.requires_grad for p in g) for g in groups], [g['lr'] for g in learn.opt.param_groups]))
    rows = unfreeze_gradually(learn, [(1, 1e-2), (1, 5e-3), (1, 1e-3)], cbs=Watch(), div=2.)
    assert [r['n_free'] for r in rows] == [1, 2, 4] and {'valid_loss', 'accuracy', 'lr'} <= set(rows[0])
    free = [f for i, (f, _) in enumerate(seen) if not i or f != seen[i-1][0]]
    assert free == [[False]*3 + [True], [False]*2 + [True]*2, [True]*4]
    for _, lrs in seen: assert lrs == pytest.approx([lrs[-1]/8, lrs[-1]/4, lrs[-1]/2, lrs[-1]])
    assert all(p.requires_grad for p in learn.model.parameters())


def test_an_error_in_the_middle_leaves_no_group_frozen(encoder_file):
    learn = text_classifier_learner(text_dls(), encoder=encoder_file, progress=False, device='cpu')
    class Stop:
        def after_step(self, learn): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): unfreeze_gradually(learn, [(1, 1e-2), (1, 1e-3)], cbs=Stop())
    assert all(p.requires_grad for p in learn.model.parameters())


def test_the_whole_road_learns_what_is_good(encoder_file):
    set_seed(1)
    learn = text_classifier_learner(text_dls(), encoder=encoder_file, drop_mult=0.1, progress=False, device='cpu')
    unfreeze_gradually(learn, [(1, 1e-2), (8, 2e-2)], div=1.)
    assert learn.validate()['accuracy'] == 1.
    good, bad = 'a good film , truly great fun .', 'a bad film , what a poor story .'
    assert learn.predict(good).label == 'pos' and learn.predict(bad).label == 'neg'
    tokens, effects, label = token_effects(learn, bad, 'neg')
    assert label == 'neg' and tokens[int(effects.argmax())] in ('bad', 'poor') and len(effects) == len(tokens)
    assert torch.allclose(token_effects(learn, bad, 'pos')[1], -effects, atol=1e-5)


def test_predict_takes_any_string_and_nothing_else():
    learn = text_classifier_learner(text_dls(), SIZES, progress=False, device='cpu')
    for text in ('', 'x', 'good', '???', 'unheard of words', 'good ' * 3000):
        probs = learn.predict(text).probs
        assert probs.shape == (2,) and probs.isfinite().all()
    for what in (5, None, b'good', ['good']):
        with pytest.raises(TypeError): learn.predict(what)


@pytest.mark.parametrize('half', [AMP, MixedPrecision])
def test_training_in_half_precision_and_with_long_texts_works(half):
    learn = text_classifier_learner(text_dls(), SIZES | dict(bptt=3, max_len=3), progress=False, device='cpu',
                                    cbs=half())
    learn.fit(1)
    assert np.isfinite(learn.recorder.values[-1]['valid_loss'])


def test_a_classifier_is_loaded_in_a_fresh_process(encoder_file, tmp_path):
    learn = text_classifier_learner(text_dls([Tokenizer(tok='regex'), Backwards(), Numericalizer(min_freq=1)]),
                                    SIZES | dict(max_len=77),
                                    progress=False, device='cpu')
    learn.export(tmp_path/'clf.safetensors')
    probs = learn.predict('what a GOOOOOD film').probs
    code = f'''
        import json, minidl.ulmfit
        from minidl.learner import load_learner
        learn = load_learner({str(tmp_path/'clf.safetensors')!r}, device='cpu')
        tokenizer, backwards, numericalizer = learn.dls.pipe.proc_x
        out = learn.predict('what a GOOOOOD film')
        print(json.dumps(dict(probs=out.probs.tolist(), tok=tokenizer.tok, n=len(numericalizer.vocab),
                              max_len=learn.model.max_len, vocab=learn.dls.vocab)))'''
    done = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout.splitlines()[-1])
    torch.testing.assert_close(torch.tensor(out['probs']), probs)
    assert (out['tok'], out['max_len'], out['vocab']) == ('regex', 77, ['neg', 'pos'])
    assert out['n'] == len(text_vocab(learn.dls))


def test_a_loaded_language_model_goes_on_writing(lm, tmp_path):
    lm.export(tmp_path/'lm.safetensors')
    again = load_learner(tmp_path/'lm.safetensors', device='cpu')
    assert generate(again, 'a good', 8, seed=3) == generate(lm, 'a good', 8, seed=3)
    for text in 'a good film', 'a good film , what a story . '*20:
        want = lm.predict(text)
        assert want.ndim == 2 and want.shape[1] == len(text_vocab(lm.dls)) and len(want) > 3
        for _ in range(2): assert torch.equal(again.predict(text), want)


def test_results_show_what_comes_and_what_was_thought_to_come(lm, capsys):
    lm.fit(8, 2e-2)
    capsys.readouterr()
    lm.show_results(n=2, width=60)
    first, second = capsys.readouterr().out.strip().split('\n\n')
    xb, yb = next(iter(lm.dls.valid))
    guess = lm.get_preds([(xb,)])[0].argmax(-1)
    assert first.split('\n') == [textwrap.shorten(lm.dls.decode((t, t))[0][0], 60) for t in (yb, guess)] != second


def test_the_wrong_learner_gets_a_sentence(lm):
    learn = text_classifier_learner(text_dls(), SIZES, progress=False, device='cpu')
    with pytest.raises(TypeError, match='language model, and this one has a TextClassifier'): generate(learn, 'a')
    with pytest.raises(TypeError, match='one of several classes, and this one has a LanguageModel'):
        token_effects(lm, 'a')
    il = TextList([t for t, _ in TEXTS], table={'y': [float(len(t)) for t, _ in TEXTS]})
    dls = label_by_col(SplitData.split_random(il, 0.25), 'y', proc_x=[Tokenizer(tok='regex'), Numericalizer()])
    learn = text_classifier_learner(dls.to_dls(bs=8), SIZES, metrics=(), progress=False, device='cpu')
    with pytest.raises(TypeError, match='one of several classes'): token_effects(learn, 'a')


# Writing

def test_generation_is_repeatable_and_knows_no_xxunk(lm):
    lm.model.decoder.linear.bias.data[UNK_ID] = 100.
    lm.model.decoder.linear.bias.data[PAD_ID] = 100.
    texts = {generate(lm, 'what a', 30, seed=s) for s in (1, 1, 2)}
    assert len(texts) == 2
    for t in texts: assert 'xxunk' not in t and 'xxpad' not in t and t.startswith('what a')


def test_generation_continues_the_state_as_if_it_read_all_again(lm):
    lm.model.eval()
    lm.model.encoder.embed.emb.weight.data.mul_(20)     # so that what is said depends on what was read
    lm.model.encoder.rnns[0].lstm.weight_hh_l0.data.mul_(5)
    text = generate(lm, 'a', 12, top_k=1)
    tokenizer, numericalizer = lm.dls.pipe.proc_x
    tokens = numericalizer(tokenizer(['a']))[0].tolist()[:-1]
    for _ in range(12):
        with torch.no_grad(): logits = lm.model.decoder(lm.model.encoder.encode(torch.tensor([tokens]))[0])[0][0, -1]
        logits[[UNK_ID, PAD_ID]] = -1e9
        tokens.append(int(logits.argmax()))
        if text_vocab(lm.dls)[tokens[-1]] == EOS: break
    for p in reversed(lm.dls.pipe.proc_x): tokens = p.decode(tokens)
    assert text == tokens


def test_top_k_and_temperature_narrow_the_choice(lm):
    lm.model.decoder.linear.bias.data[:] = torch.linspace(-3, 3, lm.model.encoder.n_tokens)
    words = lambda **kw: {w for s in range(12) for w in generate(lm, '', 10, seed=s, **kw).split()}
    assert len(words(top_k=2)) <= 2 < len(words())
    assert len(words(temperature=0.02)) < len(words())
    for bad in (dict(temperature=0), dict(temperature=-1), dict(top_k=0)):
        with pytest.raises(ValueError, match='over 0'): generate(lm, 'a', 3, **bad)


def test_generation_stops_at_the_end_of_a_text(lm):
    lm.model.decoder.linear.bias.data[text_vocab(lm.dls).index(EOS)] = 100.
    assert generate(lm, 'a film', 50) == generate(lm, 'a film', 1)


# Backwards, and pictures

def test_texts_are_turned_around_and_back():
    tokens = Tokenizer(tok='regex')(['one two', '', 'three'])
    turned = Backwards()(tokens)
    assert [t[::-1] for t in turned] == list(tokens) and turned[0][0] == EOS
    assert Backwards().decode(turned[0]) == tokens[0]
    proc_x = [Tokenizer(tok='regex'), Backwards(), Numericalizer(min_freq=1)]
    dls = lm_dls(proc_x)
    assert generate(lm_learner(dls, SIZES, progress=False), 'film', 0).strip() == 'film'


def test_a_text_is_drawn_with_all_its_tokens():
    import matplotlib.pyplot as plt
    fig = show_effects([f'word{i}' for i in range(60)] + ['\n'], torch.randn(61), 'title', width=50)
    drawn = fig.axes[0].texts
    assert len(drawn) == 61 and drawn[-1].get_text() == '¶' and len({t.get_position()[1] for t in drawn}) > 5
    fig = show_effects(['a'], torch.zeros(1))
    for dollars in 'a$$hole', '$\\foo$': show_effects([dollars], torch.ones(1), f'{dollars}: good').canvas.draw()
    plt.close('all')


def test_mean_rows_and_places():
    assert match_vocab(['a', 'b'], ['b', 'c', 'a']).tolist() == [1, -1, 0]
    assert take_rows(torch.tensor([1., 3.]), torch.tensor([1, -1, 0])).tolist() == [3., 2., 1.]
