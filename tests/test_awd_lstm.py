"""The AWD-LSTM (chapter 11a): parity with plain LSTMs, the statistics of its dropouts, its state under every callback
that stops, splits or copies a training, and what a mistake is told."""
import copy
import math
import pickle
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import minidl.schedule  # noqa: F401  gives the Learner its fit_one_cycle
from minidl.awd_lstm import (AWD_LSTM, EmbeddingDropout, LinearDecoder, MemoryAdvice, RNNDropout, RNNRegularizer,
                             WeightDropout, dropout_mask, get_language_model, in_one_piece, lm_cross_entropy,
                             lm_splitter, out_of_memory)
from minidl.fp16 import AMP, MixedPrecision
from minidl.learner import (EMA, Callback, Checkpoint, GradientAccumulation, GradientClip, Learner, Perplexity,
                            load_learner, split_params)
from minidl.scale import Compile, Distributed, launch
from minidl.training import DataLoaders

N, BS, SEQ = 30, 4, 5
pytestmark = pytest.mark.filterwarnings('error')


def lm(drop_mult=1., seed=0, n_layers=2, **kw):
    torch.manual_seed(seed)
    return get_language_model(N, 8, 12, n_layers, drop_mult=drop_mult, **kw)

def batches(n=6, seed=0, bs=BS):
    t = torch.randint(2, N, (bs, n*SEQ + 1), generator=torch.Generator().manual_seed(seed))
    return [(t[:, i:i+SEQ], t[:, i+1:i+SEQ+1]) for i in range(0, n*SEQ, SEQ)]

def make(*cbs, model=None, reg=(2., 1.), lr=0.01, **kw):
    torch.manual_seed(1)
    cbs = [RNNRegularizer(*reg), *cbs]
    return Learner(model or lm(), DataLoaders(batches(), batches(3, 1)), lm_cross_entropy, lr=lr, metrics=Perplexity,
                   cbs=cbs, progress=False, device='cpu', **kw)

def assert_same_weights(a, b):
    for (k, s), t in zip(a.model.state_dict().items(), b.model.state_dict().values()): assert torch.equal(s, t), k


# ---- dropouts

@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize('p', [0.1, 0.5, 0.9])
def test_a_mask_keeps_its_share_scales_the_rest_and_has_expectation_1(p, dtype):
    torch.manual_seed(0)
    mask = dropout_mask(torch.zeros((), dtype=dtype), (1000, 200), p)
    assert mask.dtype == dtype
    assert (mask > 0).double().mean().item() == pytest.approx(1 - p, abs=4*(p*(1-p)/2e5)**0.5)
    assert mask.double().unique().tolist() == [0., pytest.approx(1/(1-p), rel=1e-2 if dtype != torch.float64 else 1e-9)]
    assert mask.double().mean().item() == pytest.approx(1, abs=0.03)

def test_rnn_dropout_holds_its_mask_over_time_and_draws_anew_for_each_row_feature_and_call():
    torch.manual_seed(0)
    drop, ones = RNNDropout(0.4), torch.ones(50, 7, 40)
    mask = drop(ones)
    assert torch.equal(mask, mask[:, :1].expand_as(mask))
    assert (mask[:, 0].std(0) > 0).all() and (mask[:, 0].std(1) > 0).all()
    assert not torch.equal(drop(ones), mask)
    assert drop.eval()(ones) is ones and RNNDropout(0.)(ones) is ones

def test_embedding_dropout_drops_words_everywhere_and_only_rows_in_use_get_gradients():
    torch.manual_seed(0)
    emb = nn.Embedding(400, 6)
    drop, ids = EmbeddingDropout(emb, 0.3), torch.arange(400).repeat(3, 2)
    factor = (drop(ids) / emb(ids)).detach()
    assert torch.allclose(factor, factor[..., :1].expand_as(factor))
    assert torch.allclose(factor[0, :400], factor[2, 400:])   # the same word elsewhere in the batch
    assert (factor[0, :400, 0] > 0).float().mean().item() == pytest.approx(0.7, abs=0.08)
    assert factor.max().item() == pytest.approx(1/0.7, rel=1e-5)
    emb.weight.grad = None
    out = drop(torch.tensor([[3, 5, 3]]))
    out.sum().backward()
    kept = (out[0].detach() != 0).any(1)
    assert emb.weight.grad[3].sum().item() == pytest.approx(2*6/0.7*kept[0].item(), rel=1e-5)
    used = emb.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert used == [i for i, k in ((3, kept[0]), (5, kept[1])) if k]
    assert torch.equal(drop.eval()(ids), emb(ids))

@pytest.mark.parametrize('names', [('weight_hh_l0',), ('weight_hh_l0', 'weight_ih_l0')])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('batch_first', [True, False])
def test_weight_dropout_is_the_lstm_with_the_masked_matrices(names, bias, batch_first):
    torch.manual_seed(0)
    lstm = nn.LSTM(6, 9, bias=bias, batch_first=batch_first)
    drop, state = WeightDropout(lstm, 0.4, names), (torch.randn(1, 3, 9),)*2
    x = torch.randn(3, 3, 6, requires_grad=True)
    torch.manual_seed(1)
    out, (h, c) = drop(x, state)
    torch.manual_seed(1)
    masks = {n: dropout_mask(w, w.shape, 0.4) for n, w in lstm.named_parameters() if n in names}
    masked = copy.deepcopy(lstm)
    for n, m in masks.items(): getattr(masked, n).data.mul_(m)
    expected, (eh, ec) = masked(x, state)
    torch.testing.assert_close((out, h, c), (expected, eh, ec))
    got = torch.autograd.grad(out.sin().sum(), [x, *lstm.parameters()])
    want = torch.autograd.grad(expected.sin().sum(), [x, *masked.parameters()])
    factors = [1., *(masks.get(n, 1.) for n, _ in lstm.named_parameters())]
    for g, w, f in zip(got, want, factors): torch.testing.assert_close(g, w*f)
    assert not torch.equal(drop(x, state)[0], out)
    torch.testing.assert_close(drop.eval()(x, state)[0], lstm(x, state)[0])
    assert list(drop.state_dict()) == [f'lstm.{k}' for k in lstm.state_dict()]
    assert all(isinstance(p, nn.Parameter) for p in lstm.parameters()) and lstm._flat_weights[1] is lstm.weight_hh_l0

@pytest.mark.parametrize('batch_first', [True, False])
def test_weight_dropout_begins_from_zeros_where_no_state_is_given(batch_first):
    torch.manual_seed(0)
    drop, x = WeightDropout(nn.LSTM(6, 9, batch_first=batch_first), 0.4).double(), torch.randn(3, 5, 6).double()
    zeros = (torch.zeros(1, 3 if batch_first else 5, 9).double(),)*2
    for mode in drop.train(), drop.eval():
        torch.manual_seed(1)
        want = mode(x, zeros)
        torch.manual_seed(1)
        torch.testing.assert_close(mode(x), want)

def test_the_callback_that_a_model_asks_for_changes_no_loss_and_minds_the_state():
    model = lm()
    learn, plain = make(model=model, reg=(0., 0.)), make(model=copy.deepcopy(model), reg=(0., 0.))
    learn.cbs[:] = [cb for cb in learn.cbs if not isinstance(cb, RNNRegularizer)]
    learn.add_cb(*model.callbacks())
    for o in learn, plain:
        torch.manual_seed(2)
        o.fit(1)
    assert learn.recorder.losses == plain.recorder.losses
    assert_same_weights(learn, plain)
    assert torch.equal(learn.get_preds()[0], plain.get_preds()[0]) and model.encoder.state is None

def test_weights_in_one_piece_lie_one_behind_the_other_and_pass_gradients_on():
    ts = [torch.randn(3, 4, requires_grad=True), torch.randn(5, requires_grad=True)]
    a, b = in_one_piece(ts)
    assert a.is_contiguous() and b.data_ptr() == a.data_ptr() + 12*4
    (a.sum() + 2*b.sum()).backward()
    assert (ts[0].grad == 1).all() and (ts[1].grad == 2).all()


# ---- the model

@pytest.mark.parametrize('n_layers', [1, 3])
@pytest.mark.parametrize('tie', [True, False])
def test_without_dropout_it_is_a_plain_stack_outputs_and_gradients(n_layers, tie):
    model, (xb, yb) = lm(0., n_layers=n_layers, tie_weights=tie), batches()[0]
    emb, decoder = nn.Embedding(N, 8, padding_idx=1), nn.Linear(8, N)
    emb.load_state_dict(model.encoder.embed.emb.state_dict())
    decoder.load_state_dict(model.decoder.linear.state_dict())
    if tie: decoder.weight = emb.weight
    sizes = [8] + [12]*(n_layers-1) + [8]
    rnns = [nn.LSTM(i, o, batch_first=True) for i, o in zip(sizes, sizes[1:])]
    for r, mine in zip(rnns, model.encoder.rnns): r.load_state_dict(mine.lstm.state_dict())
    x = emb(xb)
    for r in rnns: x = r(x)[0]
    logits, raw, dropped = model(xb)
    torch.testing.assert_close(logits, decoder(x))
    assert raw is dropped and torch.allclose(raw, x)
    lm_cross_entropy(logits, yb).backward()
    F.cross_entropy(decoder(x).flatten(0, 1), yb.flatten()).backward()
    torch.testing.assert_close(model.encoder.embed.emb.weight.grad, emb.weight.grad)
    torch.testing.assert_close(model.decoder.linear.bias.grad, decoder.bias.grad)
    for r, mine in zip(rnns, model.encoder.rnns):
        for p, q in zip(r.parameters(), mine.parameters()): torch.testing.assert_close(q.grad, p.grad)

def test_in_evaluation_every_dropout_is_off_and_in_training_each_one_works():
    (xb, _), off = batches()[0], dict(hidden_p=0., input_p=0., embed_p=0., weight_p=0., output_p=0.)
    plain = lm(**off)
    torch.testing.assert_close(lm().eval()(xb)[0], plain(xb)[0])
    plain.reset()
    for name in off:
        model = lm(**off | {name: 0.5})
        torch.manual_seed(3)
        assert not torch.allclose(model.train()(xb)[0], plain(xb)[0]), name
        plain.reset()
    raw, dropped = lm(**off | {'output_p': 0.5})(xb)[1:]
    assert (raw != 0).all() and (dropped == 0).any()

def test_drop_mult_scales_every_dropout():
    model = lm(0.5, hidden_p=0.2, input_p=0.4, embed_p=0.1, weight_p=0.6, output_p=0.3)
    enc = model.encoder
    assert (enc.hidden_drops[0].p, enc.input_drop.p, enc.embed.p, enc.rnns[0].p, model.decoder.drop.p) == \
        (0.1, 0.2, 0.05, 0.3, 0.15)

def test_the_state_is_carried_detached_cut_to_fewer_rows_and_dropped_for_more():
    enc, ids = lm(0.).encoder, torch.randint(2, N, (4, 20))
    whole, state = enc.encode(ids)
    enc.reset()
    torch.testing.assert_close(torch.cat([enc(ids[:, :7]), enc(ids[:, 7:])], 1), whole)
    torch.testing.assert_close(enc.state, state)
    assert not any(t.requires_grad for hc in enc.state for t in hc) and state[0][1].requires_grad
    enc.reset()
    enc(ids[:, :7])
    torch.testing.assert_close(enc(ids[:2, 7:]), whole[:2, 7:])
    torch.testing.assert_close(enc(ids), whole)
    assert enc.double()(ids).dtype == torch.float64   # another dtype

def test_keys_are_those_of_lstm_and_embedding_and_the_tied_weight_is_one_parameter():
    model = lm()
    rnn = [f'{k}_{n}_l0' for k in ('weight', 'bias') for n in ('ih', 'hh')]
    lstms = [f'encoder.rnns.{i}.lstm.{k}' for i in (0, 1) for k in rnn]
    assert list(model.state_dict()) == ['encoder.embed.emb.weight', *lstms, 'decoder.linear.weight',
                                        'decoder.linear.bias']
    assert model.decoder.linear.weight is model.encoder.embed.emb.weight
    keys = list(model.state_dict())
    model(batches()[0][0])
    assert list(model.state_dict()) == keys

@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
                         ids=['deepcopy', 'pickle'])
def test_a_copy_is_independent_tied_and_has_the_state(duplicate):
    model, bs = lm(), batches()
    model(bs[0][0])
    twin = duplicate(model)
    assert twin.decoder.linear.weight is twin.encoder.embed.emb.weight is not model.encoder.embed.emb.weight
    for m in model, twin:
        torch.manual_seed(0)
        m.out = m(bs[1][0])[0]
    assert torch.equal(model.out, twin.out)
    lm_cross_entropy(twin.out, bs[1][1]).backward()
    assert all(p.grad is None for p in model.parameters()) and all(p.grad is not None for p in twin.parameters())

def test_the_splitter_has_each_parameter_once_the_tied_one_last():
    for tie in True, False:
        model = lm(tie_weights=tie)
        groups = split_params(model, lm_splitter)
        assert [len(g) for g in groups] == [4, 4, 2 if tie else 3]
        assert any(p is model.decoder.linear.weight for p in groups[-1])
    learn = make(splitter=lm_splitter)
    learn.fit_one_cycle(1, (1e-4, 1e-2))
    for lrs in learn.recorder.lrs: assert lrs == pytest.approx([lrs[-1]/100, lrs[-1]/10, lrs[-1]])


# ---- the callback

def test_ar_and_tar_are_the_formula_in_float64_and_only_in_the_loss_that_is_backpropagated():
    torch.manual_seed(0)
    raw, dropped = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    jumps = [(raw[i, t+1, k] - raw[i, t, k]).item()**2 for i in range(3) for t in range(4) for k in range(4)]
    ar, tar = sum(x.item()**2 for x in dropped.flatten())/60, sum(jumps)/len(jumps)
    assert RNNRegularizer(2., 1.).penalty(raw, dropped).item() == pytest.approx(2*ar + tar, rel=1e-6)
    assert RNNRegularizer(0.7, 0.).penalty(raw, dropped).item() == pytest.approx(0.7*ar, rel=1e-6)
    assert RNNRegularizer(0., 0.3).penalty(raw, dropped).item() == pytest.approx(0.3*tar, rel=1e-6)
    assert RNNRegularizer(0., 0.).penalty(raw, dropped) == 0
    class Note(Callback):
        rows = []
        def after_loss(self, learn): self.rows.append((learn.training, learn.loss.item(), learn.loss_grad.item()))
    off = dict(hidden_p=0., input_p=0., embed_p=0., weight_p=0., output_p=0.)
    learn = make(note := Note(), model=lm(**off), lr=0.)
    learn.fit(1)
    model, xb, yb = lm(**off), *batches()[0]
    logits, raw, dropped = model(xb)
    loss = lm_cross_entropy(logits, yb)
    assert note.rows[0] == (True, pytest.approx(loss.item()),
                            pytest.approx((loss + 2*dropped.square().mean() + raw.diff(dim=1).square().mean()).item()))
    assert all(a == b for training, a, b in note.rows if not training) and any(not t for t, *_ in note.rows)

def test_every_epoch_and_validation_begins_without_state_and_a_fit_ends_without():
    class Note(Callback):
        order = -120
        def __init__(self): self.seen = []
        def before_batch(self, learn): self.seen.append((learn.training, learn.iter, learn.model.encoder.state is None))
    learn = make(note := Note())
    learn.fit(2)
    assert all(empty == (i == 0) for _, i, empty in note.seen) and len(note.seen) == 2*(6 + 3)
    assert learn.model.encoder.state is None
    learn.validate()
    assert learn.model.encoder.state is None

@pytest.mark.parametrize('look', ['validate', 'get_preds'])
def test_a_validation_in_the_middle_of_training_disturbs_nothing(look):
    class Peek(Callback):
        order = 50
        def after_batch(self, learn):
            if learn.training: getattr(learn, look)()
    a, b = make().fit(2), make(Peek()).fit(2)
    assert a.recorder.losses == b.recorder.losses
    assert_same_weights(a, b)

class Stop(Callback):
    order = 99
    def __init__(self, epoch, i): self.at = epoch, i
    def after_batch(self, learn):
        if learn.training and (learn.epoch, learn.iter) == self.at: raise RuntimeError('power cut')

EXTRA = dict(nothing=lambda: [], ema=lambda: [EMA(0.8), GradientClip(0.3)],
             accumulated=lambda: [GradientAccumulation(2)],
             amp=lambda: [AMP()], half=lambda: [MixedPrecision()])

@pytest.mark.parametrize('extra', EXTRA)
@pytest.mark.parametrize('at', [(0, 3), (1, 1), (1, 5)])
def test_a_fit_stopped_within_an_epoch_goes_on_to_the_same_bits(extra, at, tmp_path):
    whole = make(*EXTRA[extra]()).fit(2)
    with pytest.raises(RuntimeError, match='power cut'):
        make(*EXTRA[extra](), Checkpoint(tmp_path, every=1), Stop(*at)).fit(2)
    again = make(*EXTRA[extra](), Checkpoint(tmp_path, every=1))
    torch.manual_seed(99)
    again.fit(resume=tmp_path)
    assert again.recorder.losses == whole.recorder.losses
    assert_same_weights(again, whole)

def test_without_the_state_in_the_checkpoint_resuming_would_differ(tmp_path, monkeypatch):
    whole = make().fit(2)
    with pytest.raises(RuntimeError): make(Checkpoint(tmp_path, every=1), Stop(1, 2)).fit(2)
    monkeypatch.setattr(RNNRegularizer, 'load_state_dict', lambda self, state: None)
    assert make(Checkpoint(tmp_path, every=1)).fit(resume=tmp_path).recorder.losses != whole.recorder.losses

def test_the_rate_finder_leaves_the_state_and_everything_else():
    learn = make()
    learn.model(batches()[0][0])
    state, weights = copy.deepcopy(learn.model.encoder.state), copy.deepcopy(learn.model.state_dict())
    learn.lr_find(n=8)
    torch.testing.assert_close(learn.model.encoder.state, state, rtol=0, atol=0)
    torch.testing.assert_close(learn.model.state_dict(), weights, rtol=0, atol=0)


# ---- half precision, compiling, files, two processes

@pytest.mark.parametrize('cb', [AMP, lambda: MixedPrecision(loss_scale=64, dynamic=False)],
                         ids=['AMP', 'MixedPrecision'])
def test_half_precision_trains_near_single_without_warnings(cb):
    a, b = make(lr=3e-3).fit(2), make(cb(), lr=3e-3).fit(2)
    assert b.recorder.losses == pytest.approx(a.recorder.losses, rel=0.02)
    assert b.recorder.losses[-1] < b.recorder.losses[0]
    assert all(p.dtype == torch.float32 for p in b.model.parameters())
    assert b.get_preds()[0].dtype == torch.float32

def test_a_compiled_fit_is_the_plain_one():
    with warnings.catch_warnings(record=True) as caught:  # not 'error': the tracer raises and hides warnings of its own
        warnings.simplefilter('always')
        torch.compiler.reset()
        a, b = make().fit(2), make(Compile(backend='eager')).fit(2)
    assert not [w for w in caught if 'compiled' in str(w.message)]
    assert b.recorder.losses == pytest.approx(a.recorder.losses, rel=1e-4)
    assert list(b.model.state_dict()) == list(a.model.state_dict())

def test_saved_exported_and_loaded_models_predict_the_same(tmp_path):
    learn = make().fit(1)
    preds, _ = learn.get_preds()
    learn.save(tmp_path/'m.safetensors')
    other = make(model=lm(seed=5)).load(tmp_path/'m.safetensors')
    assert torch.equal(other.get_preds()[0], preds)
    learn.export(tmp_path/'e.safetensors')
    loaded = load_learner(tmp_path/'e.safetensors', device='cpu')
    assert loaded.model.decoder.linear.weight is loaded.model.encoder.embed.emb.weight
    for _ in range(2): assert torch.equal(loaded.get_preds(batches(3, 1))[0], preds)

class Rows(list):
    "Batches whose rows are shared out."
    def share(self, rank, n_ranks): return Rows([(x[rank::n_ranks], y[rank::n_ranks]) for x, y in self])

def two_ranks(out):
    learn = make(Distributed('gloo', timeout=60), model=lm(0.))
    learn.dls.train = Rows(learn.dls.train)
    learn.fit(2)
    torch.save((learn.model.state_dict(), learn.recorder.losses), Path(out)/f'rank{learn.cb(Distributed).rank}.pt')
    make(Distributed('gloo', timeout=60, share=False)).fit(1)   # with every dropout

def test_two_processes_do_what_one_does(tmp_path):
    printed = launch(__file__, 2, tmp_path, timeout=150)
    assert 'Warning' not in printed.replace('OMP_NUM_THREADS', ''), printed
    (a, losses), (b, _) = (torch.load(tmp_path/f'rank{r}.pt', weights_only=True) for r in range(2))
    one = make(model=lm(0.)).fit(2)
    for k, v in one.model.state_dict().items():
        assert torch.equal(a[k], b[k]), k
        torch.testing.assert_close(a[k], v, rtol=1e-3, atol=1e-4)
    assert losses == pytest.approx(one.recorder.losses, rel=1e-4)


# ---- mistakes

@pytest.mark.parametrize('p', [-0.1, 1, 1., 2, math.nan])
def test_probabilities_out_of_range_are_refused_everywhere(p):
    for f in (RNNDropout, lambda p: EmbeddingDropout(nn.Embedding(3, 2), p), lambda p: WeightDropout(nn.LSTM(2, 3), p),
              lambda p: lm(hidden_p=p), lambda p: lm(output_p=p), lambda p: lm(drop_mult=p*10 or 1)):
        with pytest.raises(ValueError, match='at least 0 and less than 1'): f(p)

@pytest.mark.parametrize('ids, exc, said', [
    (torch.tensor([[2, N]]), IndexError, f'from 2 to {N}, and this model knows 0 to {N-1}'),
    (torch.tensor([[-1, 3]]), IndexError, 'from -1 to 3'),
    (torch.ones(2, 3), TypeError, 'float32 of shape \\(2, 3\\)'),
    (torch.ones(3, dtype=torch.int64), TypeError, 'shape \\(3,\\)'),
    (torch.ones(2, 3, dtype=torch.uint8), TypeError, 'uint8')])
def test_wrong_ids_get_a_sentence(ids, exc, said):
    with pytest.raises(exc, match=said): lm()(ids)

def test_int32_ids_are_welcome():
    assert torch.equal(lm().eval()(batches()[0][0].int())[0], lm().eval()(batches()[0][0])[0])

def test_weights_that_cannot_be_tied_or_dropped_get_a_sentence():
    for n_tokens, emb_sz in (9, 4), (8, 5):
        with pytest.raises(ValueError, match=r'cannot share that of the embedding, \(8, 4\)'):
            LinearDecoder(n_tokens, emb_sz, tie_encoder=nn.Embedding(8, 4))
    for lstm in nn.LSTM(2, 3, 2), nn.LSTM(2, 3, bidirectional=True), nn.LSTM(2, 3, proj_size=1), nn.GRU(2, 3):
        with pytest.raises(ValueError, match='one layer, one direction'): WeightDropout(lstm)
    with pytest.raises(ValueError, match='no weight_hh_l1; it has weight_ih_l0'):
        WeightDropout(nn.LSTM(2, 3), names=['weight_hh_l1'])

def test_a_model_without_layers_is_refused():
    with pytest.raises(ValueError, match='n_layers'): AWD_LSTM(N, 8, 12, 0)

def test_the_callback_is_missed_and_refused_with_a_sentence():
    learn = Learner(lm(), DataLoaders(batches()), lm_cross_entropy, progress=False)
    with pytest.raises(TypeError, match='RNNRegularizer'): learn.fit(1)
    with pytest.raises(TypeError, match='no part of Linear has a `state`'):
        make(model=nn.Linear(2, 2)).fit(1)

def test_targets_out_of_the_vocabulary_are_found_by_the_sanity_check():
    learn = make()
    learn.dls.train = [(x, y + N) for x, y in batches()]
    with pytest.raises(ValueError, match=f'the model has {N} outputs'): learn.fit(1)

FULL = [torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.'),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to "
                     'allocate 9 bytes'),
        RuntimeError('DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.'), MemoryError(),
        RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')]

@pytest.mark.parametrize('where', ['forward', 'loss', 'backward', 'step'])
@pytest.mark.parametrize('error', FULL, ids=lambda e: f'{type(e).__name__}-{str(e)[:20]}')
def test_a_full_memory_says_once_what_to_lower(error, where, monkeypatch):
    def fail(*args): raise copy.copy(error)
    learn = make(MemoryAdvice())
    if where == 'forward': monkeypatch.setattr(learn.model.decoder, 'forward', fail)
    elif where == 'loss': learn.loss_func = fail
    else: setattr(learn, where, fail)
    runs = [lambda: learn.fit(1)] + [learn.validate]*(where in ('forward', 'loss'))
    runs += [learn.get_preds]*(where == 'forward')
    for run in runs:
        with pytest.raises(type(error)) as caught: run()
        notes = [n for n in caught.value.__notes__ if 'Memory is full' in n]
        assert len(notes) == 1 and '(4, 5)' in notes[0]
        assert 'bs, ' in notes[0] and 'bptt, ' in notes[0] and 'max_len' not in notes[0]
    assert out_of_memory(error)

def test_advice_names_what_can_be_lowered_and_leaves_other_errors_and_contexts_alone():
    def fail(*args): raise RuntimeError('mat1 and mat2 shapes cannot be multiplied')
    learn = make(MemoryAdvice('bs', 'max_len'))
    learn.fit(1)
    learn.validate()
    assert learn.contexts == []
    learn.loss_func = fail
    with pytest.raises(RuntimeError) as caught: learn.fit(1)
    assert not any('Memory' in n for n in getattr(caught.value, '__notes__', ())) and learn.contexts == []
    def full(*args): raise torch.cuda.OutOfMemoryError('CUDA out of memory')
    learn.loss_func = full
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught: learn.fit(1)
    assert any('max_len, ' in n and 'bptt' not in n for n in caught.value.__notes__)
    with pytest.raises(ValueError, match='seq_len'): MemoryAdvice('seq_len')


if __name__ == '__main__': two_ranks(sys.argv[1])
