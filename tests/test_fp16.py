"Half precision (chapter 09b): formats, masters, loss scaling, and that nothing is left behind, whatever ends a fit."
import copy
import math
import struct
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

import minidl.schedule   # noqa: F401 (fit_one_cycle, lr_find)
from minidl import fp16, optim
from minidl.fp16 import (AMP, MixedPrecision, bn_to_float, float_bits, gap, get_master, grad_overflow, in_half,
                         model_to_half, to_master_grads, to_model_params)
from minidl.hooks import ActivationStats
from minidl.learner import (EMA, Callback, CancelBackward, CancelBatch, CancelFit, CancelStep, Checkpoint,
                            GradientAccumulation, GradientClip, Learner, read_checkpoint, read_tensors)
from minidl.norm import BatchNorm, LayerNorm, RunningBatchNorm
from minidl.training import accuracy, get_dls

DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA'))]
device = pytest.mark.parametrize('device', DEVICES)
HALF = torch.float16
OPTS = {'SGD': torch.optim.SGD, 'momentum': partial(torch.optim.SGD, momentum=0.9, weight_decay=0.01),
        'Adam': torch.optim.Adam, 'AdamW': torch.optim.AdamW, 'RMSprop': partial(torch.optim.RMSprop, momentum=0.5),
        'NAdam': torch.optim.NAdam, 'Adagrad': torch.optim.Adagrad, 'ours SGD': partial(optim.SGD, momentum=0.9),
        'ours AdamW': optim.AdamW, 'ours RMSProp': optim.RMSProp, 'LAMB': optim.LAMB}
opts = pytest.mark.parametrize('opt_func', OPTS.values(), ids=OPTS)
both = pytest.mark.parametrize('make_cb', [lambda: MixedPrecision(max_loss_scale=2.**12), lambda: AMP(HALF)],
                               ids=['MixedPrecision', 'AMP'])


def data(n=240, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 10, generator=g)
    return TensorDataset(x, x[:, :3].argmax(1))

def net(norm=nn.BatchNorm1d, seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 32), *([norm(32)] if norm else []), nn.ReLU(), nn.Linear(32, 3))

def make(*cbs, model=None, opt_func=torch.optim.AdamW, bs=20, lr=0.01, device='cpu', **kw):
    torch.manual_seed(2)
    dls = get_dls(data(), data(100, 1), bs=bs)
    return Learner(net() if model is None else model, dls, F.cross_entropy, opt_func, lr=lr, metrics=accuracy,
                   cbs=list(cbs), device=device, progress=False, **kw)

def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]
def flat(ts): return torch.cat([t.flatten() for t in ts])

def assert_back(learn):
    "The model in float32, the optimizer with the model's own parameters, the learner without attachments."
    assert {t.dtype for t in learn.model.state_dict().values() if t.is_floating_point()} == {torch.float32}
    groups = [p for g in learn.opt.param_groups for p in g['params']]
    assert {id(p) for p in groups} == {id(p) for p in learn.model.parameters()}
    assert all(id(k) in {id(p) for p in groups} for k in learn.opt.state)
    assert learn.contexts == [] and not {'backward', 'step'} & set(vars(learn)) and 'zero_grad' not in vars(learn.opt)
    for p in learn.model.parameters(): assert p.grad is None or p.grad.dtype == p.dtype
    for m in learn.model.modules():
        assert not m._forward_hooks and not m._forward_pre_hooks and not m._state_dict_hooks
        assert not m._load_state_dict_pre_hooks
    for c in learn.cbs: assert 'params' not in vars(c)

class Picks(nn.Module):
    "A layer whose parameters are numbers of columns."
    def __init__(self):
        super().__init__()
        self.cols = nn.Parameter(torch.tensor([1, 3, 2049]), requires_grad=False)
    def forward(self, x): return x[:, self.cols % 10]

@pytest.mark.parametrize('groups', [None, lambda m: [list(m[0].parameters()), list(m[1].parameters())]])
def test_integer_parameters_stay_what_they_are(groups):
    torch.manual_seed(0)
    learn = make(MixedPrecision(max_loss_scale=2.**12, flat_master=groups is not None),
                 model=nn.Sequential(Picks(), nn.Linear(3, 3)), splitter=groups)
    before = learn.model[1].weight.detach().clone()
    learn.fit(1)
    assert learn.model[0].cols.dtype == torch.int64 and learn.model[0].cols.tolist() == [1, 3, 2049]
    assert not torch.equal(learn.model[1].weight, before) and math.isfinite(learn.validate()['loss'])

def test_averages_leave_integer_parameters_out_in_half_precision_too():
    torch.manual_seed(0)
    learn = make(MixedPrecision(max_loss_scale=2.**12), EMA(0.5), model=nn.Sequential(Picks(), nn.Linear(3, 3)))
    learn.fit(1)
    assert learn.model[0].cols.tolist() == [1, 3, 2049] and math.isfinite(learn.validate()['loss'])

class At(Callback):
    "Calls a function at an event of one batch (or of all)."
    def __init__(self, event, f, epoch=None, i=None, order=50, training=True):
        self.order = order
        def call(learn):
            if training is not None and learn.training != training: return
            if epoch in (None, learn.epoch) and i in (None, learn.iter): f(learn)
        setattr(self, event, call)

def raiser(exc):
    def f(learn): raise exc
    return f

def overflow(learn): learn.loss_grad = learn.loss_grad * 1e12


# ---- formats

@pytest.mark.parametrize('dtype, code', [(torch.float16, 'e'), (torch.float32, 'f'), (torch.float64, 'd')])
def test_the_fields_are_those_that_struct_packs(dtype, code):
    x = torch.cat([torch.randn(200, dtype=torch.float64).to(dtype) * 10**s for s in (-6, -3, 0, 3)]
                  + [torch.tensor([0., -0., math.inf, -math.inf, torch.finfo(dtype).max], dtype=dtype)])
    n_frac = -round(math.log2(torch.finfo(dtype).eps))
    n = torch.finfo(dtype).bits
    for v, s, e, f in zip(x.tolist(), *(t.tolist() for t in float_bits(x))):
        whole = int.from_bytes(struct.pack(f'>{code}', v), 'big')
        assert (s, e, f) == (whole >> n-1, whole >> n_frac & 2**(n-1-n_frac) - 1, whole & 2**n_frac - 1)

def test_bfloat16_is_the_upper_half_of_float32():
    x = torch.randn(100).bfloat16()
    for a, b in zip(float_bits(x)[:2], float_bits(x.float())[:2]): assert torch.equal(a, b)
    assert torch.equal(float_bits(x)[2], float_bits(x.float())[2] >> 16)

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gaps_are_those_of_finfo_and_nextafter(dtype):
    info = torch.finfo(dtype)
    assert gap(torch.tensor(1., dtype=dtype)).item() == info.eps
    assert gap(torch.tensor(0., dtype=dtype)).item() == info.smallest_normal*info.eps
    assert gap(torch.tensor([math.inf, math.nan], dtype=dtype)).isnan().all()
    x = torch.tensor([2.**k * m for k in (-20, -14, -1, 0, 3, 10, 14) for m in (1, 1.3, 1.99)], dtype=dtype)
    if dtype != torch.float16:   # torch has no nextafter for it
        assert torch.equal(gap(x), torch.nextafter(x, torch.full_like(x, math.inf)).double() - x.double())

def test_gaps_of_all_halves_are_the_distances_between_neighbors():
    halves = torch.arange(2**15).short().view(HALF)
    finite = halves[halves.isfinite()]
    assert torch.equal(gap(finite)[:-1], finite.double().diff())
    assert torch.equal(gap(-finite), gap(finite))

def test_fields_of_a_scalar_and_of_a_matrix_have_its_shape():
    assert float_bits(torch.tensor(1.))[0].shape == () and gap(torch.ones(2, 3).half()).shape == (2, 3)


# ---- models

NORM_LAYERS = [nn.BatchNorm1d(4), nn.LayerNorm(4), nn.GroupNorm(1, 4), nn.RMSNorm(4), BatchNorm(4), LayerNorm(4),
               RunningBatchNorm(4)]

@device
@pytest.mark.parametrize('layer', NORM_LAYERS, ids=lambda m: f'{type(m).__module__[:6]}.{type(m).__name__}')
def test_a_net_with_any_norm_runs_in_half_with_its_norm_in_float32(layer, device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), copy.deepcopy(layer), nn.Linear(4, 2)).to(device)
    x = torch.randn(8, 6, device=device)
    want = model(x)
    model.load_state_dict(model.state_dict())
    with in_half(model):
        assert {p.dtype for p in model[0].parameters()} == {HALF}
        assert {t.dtype for t in model[1].state_dict().values() if t.is_floating_point()} == {torch.float32}
        out = model(x.half())
        assert out.dtype == HALF
        out.float().sum().backward()
    if not isinstance(layer, RunningBatchNorm): assert_close(out.float(), want, atol=0.05, rtol=0.05)
    assert {p.dtype for p in model.parameters()} == {torch.float32}

def test_norms_keep_what_halves_cannot_hold():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    var, w = torch.tensor([1e6, 1e-9, 1.00001]), torch.tensor([1e6, 1e-9, 1.00001])
    model[1].running_var.copy_(var)
    model[1].weight.data.copy_(w)
    model_to_half(model)
    assert torch.equal(model[1].running_var, var) and torch.equal(model[1].weight.data, w)
    assert model[0].weight.dtype == HALF and model[1].num_batches_tracked.dtype == torch.int64

def test_bn_to_float_leaves_the_rest_alone():
    model = bn_to_float(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.LayerNorm(3))).half())
    assert [p.dtype for p in model.parameters()] == [HALF]*2 + [torch.float32]*4

def test_in_half_gives_everything_back_also_after_an_error():
    model = net()
    model.register_buffer('table', torch.rand(5))
    model(torch.randn(4, 10)).sum().backward()
    before, grads = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match='ouch'), in_half(model.eval()):
        assert model.table.dtype == HALF
        assert torch.equal(model.state_dict()['0.weight'], before['0.weight'])   # who asks by name gets exact values
        raise RuntimeError('ouch')
    for k, v in model.state_dict().items(): assert torch.equal(v, before[k]) and v.dtype == before[k].dtype
    for p, g in zip(model.parameters(), grads): assert torch.equal(p.grad, g)
    assert not model._state_dict_hooks

def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    with in_half(model): assert model[0].weight is model[1].weight and model[0].weight.dtype == HALF
    assert model[0].weight is model[1].weight

def test_a_buffer_that_changed_keeps_its_change_and_others_their_bits():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(10, 3)
            self.register_buffer('table', torch.full((3,), 0.1))
            self.register_buffer('seen', torch.tensor(0.1))
        def forward(self, x):
            if self.training: self.seen += 1
            return self.lin(x) + self.table
    learn = make(MixedPrecision(max_loss_scale=2.**10), model=Counts()).fit(1)
    assert torch.equal(learn.model.table, torch.full((3,), 0.1)) and abs(learn.model.seen - 12.1) < 0.01
    assert_back(learn)


# ---- masters

def groups(model, opt_func=torch.optim.SGD):
    return opt_func([{'params': [p for p in model.parameters() if p.dtype == d]} for d in (HALF, torch.float32)],
                    lr=0.1)

@pytest.mark.parametrize('flat_master', [False, True])
def test_gradients_go_to_the_masters_and_weights_come_back(flat_master):
    model = model_to_half(net())
    opt = groups(model)
    model_pgs, master_pgs = get_master(opt, flat_master)
    assert [len(mg) for mg in master_pgs] == ([1, 1] if flat_master else [4, 2])
    assert {m.dtype for mg in master_pgs for m in mg} == {torch.float32}
    F.cross_entropy(model(torch.randn(8, 10).half()).float(), torch.arange(8) % 3).backward()
    to_master_grads(model_pgs, master_pgs, flat_master)
    for pg, mg in zip(model_pgs, master_pgs):
        assert torch.equal(flat(m.grad for m in mg), flat(p.grad.float() for p in pg))
        with torch.no_grad():
            for m in mg: m += 1.0001
    want = [p.detach().clone() for pg in model_pgs for p in pg]
    to_model_params(model_pgs, master_pgs, flat_master)
    for p, w in zip([p for pg in model_pgs for p in pg], want): assert torch.equal(p, (w.float() + 1.0001).to(p.dtype))

@pytest.mark.parametrize('flat_master', [False, True])
def test_parameters_without_gradient(flat_master):
    model = model_to_half(net(norm=None))
    model[0].weight.grad = torch.ones_like(model[0].weight)
    pgs = get_master(torch.optim.SGD(model.parameters(), lr=0.1), flat_master)
    to_master_grads(*pgs, flat_master)
    if flat_master: assert pgs[1][0][0].grad.sum() == 320 and pgs[1][0][0].grad.count_nonzero() == 320
    else: assert [m.grad is None for m in pgs[1][0]] == [False, True, True, True]
    for p in model.parameters(): p.grad = None
    to_master_grads(*pgs, flat_master)
    assert all(m.grad is None for m in pgs[1][0])

def test_flat_masters_refuse_what_cannot_be_one_vector_with_a_sentence():
    model = model_to_half(net())
    with pytest.raises(ValueError, match='group 0 mixes torch.float16 and torch.float32.*group of their own'):
        get_master(torch.optim.SGD(model.parameters(), lr=0.1), True)
    model = net(norm=None)
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match='frozen'): get_master(torch.optim.SGD(model.parameters(), lr=0.1), True)
    with pytest.raises(ValueError, match='LAMB'): get_master(optim.LAMB(net(norm=None).parameters(), lr=0.1), True)
    assert [len(mg) for mg in get_master(torch.optim.SGD([{'params': []}, {'params': net(None).parameters()}], lr=0.1),
                                         True)[1]] == [0, 1]

@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
@pytest.mark.parametrize('bad', [[math.inf], [-math.inf], [math.nan], [math.inf, -math.inf]])
def test_overflow_is_seen_wherever_it_is(bad, dtype):
    ps = [[nn.Parameter(torch.zeros(n, dtype=dtype)) for n in (5, 300)], [nn.Parameter(torch.zeros(7))]]
    assert not grad_overflow(ps)
    for pg in ps:
        for p in pg: p.grad = torch.full_like(p, 6e4)   # many finite ones are no overflow, though their sum is
    assert not grad_overflow(ps)
    for where in ps[0][0], ps[0][1], ps[1][0]:
        kept = where.grad.clone()
        where.grad[-len(bad):] = torch.tensor(bad)
        assert grad_overflow(ps)
        where.grad = kept
    assert not grad_overflow(ps)


# ---- MixedPrecision

@device
@opts
@pytest.mark.parametrize('norm', [None, nn.BatchNorm1d])
def test_training_is_that_of_float32_to_rounding(opt_func, norm, device):
    runs = [make(*cbs, model=net(norm), opt_func=opt_func, device=device).fit(2)
            for cbs in ([], [MixedPrecision(max_loss_scale=2.**10)])]
    start = flat(net(norm).parameters())
    a, b = (flat(weights(r)).cpu() for r in runs)
    if norm is None:   # of the way that training went; a bias before a norm has no gradient but noise
        assert (a - b).norm() < 0.05*(a - start).norm()
    assert abs(runs[0].recorder.values[-1]['valid_loss'] - runs[1].recorder.values[-1]['valid_loss']) < 0.05
    assert_back(runs[1])

@opts
def test_a_step_is_the_optimizers_own_step_on_the_same_gradients(opt_func):
    "Against the optimizer run by hand on float32 copies, fed the rounded model's gradients: to the last bits."
    mp, fed = MixedPrecision(dynamic=False), []
    note = At('before_step',
              lambda learn: fed.append([p.grad.clone() for g in learn.opt.param_groups for p in g['params']]))
    learn = make(mp, note, opt_func=opt_func)
    twins = [nn.Parameter(w) for w in weights(learn)]
    learn.fit(1)
    opt = opt_func(twins, lr=0.01)
    for grads in fed:
        for t, g in zip(twins, grads): t.grad = g
        opt.step()
    for p, t in zip(learn.model.parameters(), twins): assert_close(p, t, rtol=1e-6, atol=1e-7)

def test_the_types_are_where_they_should_be():
    seen = []
    def look(learn):
        opt_params = [p for g in learn.opt.param_groups for p in g['params']]
        seen.append((learn.model[0].weight.dtype, learn.model[1].weight.dtype, learn.xb.dtype, learn.pred.dtype,
                     learn.loss.dtype, {p.dtype for p in opt_params}, {p.grad.dtype for p in opt_params}))
    make(MixedPrecision(max_loss_scale=2.**10), At('before_step', look)).fit(1)
    assert set(map(str, seen)) == {str((HALF, torch.float32, HALF, torch.float32, torch.float32, {torch.float32},
                                        {torch.float32}))}

def test_an_overflow_halves_the_scale_skips_the_step_and_changes_no_weight():
    mp, told = MixedPrecision(max_loss_scale=2.**10), []
    def before(learn): told.append(weights(learn) + [p.detach().clone() for p in learn.opt.param_groups[0]['params']])
    def after(learn):
        now = weights(learn) + [p.detach() for p in learn.opt.param_groups[0]['params']]
        told.append((all(torch.equal(a, b) for a, b in zip(told.pop(), now)), mp.loss_scale, mp.count))
    made = []
    learn = make(mp, At('before_backward', overflow, i=3), At('before_step', before), At('after_step', after),
                 At('after_step', lambda learn: made.append(learn.iter)), At('after_cancel_step', after)).fit(1)
    assert [t[0] for t in told] == [False]*3 + [True] + [False]*8
    assert [t[1] for t in told] == [1024]*3 + [512]*9
    assert [t[2] for t in told] == [1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8]   # clean steps since the last overflow
    assert mp.skipped == 1 and mp.made == 11 and 3 not in made
    assert {int(s['step']) for s in learn.opt.state.values()} == {11}

def test_the_scale_grows_after_clean_steps_since_the_last_overflow_and_not_over_its_limit():
    mp, scales = MixedPrecision(max_loss_scale=1024, scale_wait=4), []
    make(mp, *(At('before_backward', overflow, epoch=0, i=i) for i in (0, 3, 6)),
         At('after_batch', lambda learn: scales.append(mp.loss_scale))).fit(2)
    assert scales == [512]*3 + [256]*3 + [128]*4 + [256]*4 + [512]*4 + [1024]*6

def test_a_static_scale_stays_but_overflows_are_skipped_too():
    mp = MixedPrecision(loss_scale=256, dynamic=False)
    make(mp, At('before_backward', overflow, i=2)).fit(1)
    assert (mp.loss_scale, mp.skipped, mp.made) == (256, 1, 11)

def test_other_factors():
    mp = MixedPrecision(max_loss_scale=900., div_factor=3, scale_wait=5)
    scales = []
    make(mp, At('before_backward', overflow, i=0), At('after_batch', lambda learn: scales.append(mp.loss_scale))).fit(1)
    assert scales == [300]*5 + [900]*7
    for bad in dict(loss_scale=0), dict(div_factor=1), dict(scale_wait=0), dict(max_loss_scale=-1):
        with pytest.raises(ValueError, match='MixedPrecision wants'): MixedPrecision(**bad)

def test_the_scale_comes_down_by_itself_and_the_next_fit_begins_there():
    mp = MixedPrecision()
    learn = make(mp)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        learn.fit(4)
    low = mp.loss_scale
    assert 1 < low < 2**24 and mp.skipped == math.log2(2**24/low) and not said
    learn.fit(1)
    assert mp.skipped <= 1

def test_a_fit_that_mostly_skipped_says_so():
    mp = MixedPrecision(loss_scale=2.**60, dynamic=False)
    with pytest.warns(UserWarning, match='skipped 12 of 12 steps'): make(mp).fit(1)

@both
def test_a_hundred_overflows_in_a_row_are_an_error(make_cb):
    learn = make(make_cb(), At('before_batch', lambda learn: learn.xb.mul_(math.nan), order=0))
    before = weights(learn)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(FloatingPointError, match='100 steps in a row'): learn.fit(20)
    for a, b in zip(before, weights(learn)): assert torch.equal(a, b)
    assert_back(learn)

def test_a_loss_that_other_callbacks_add_to_is_scaled_as_a_whole():
    def penalty(learn):
        learn.loss_grad = learn.loss_grad + 0.1*sum(p.float().square().sum() for p in learn.model.parameters())
    norms = []
    for cbs in [], [MixedPrecision(dynamic=False)]:
        clip = GradientClip(1e9)
        make(*cbs, clip, At('before_backward', penalty, order=30), opt_func=torch.optim.SGD).fit(1)
        norms.append(clip.norm.item())
    assert norms[0] == pytest.approx(norms[1], rel=0.02)

def test_a_loss_function_of_ones_own_gets_float32():
    def loss(pred, targ):
        assert pred.dtype == torch.float32
        return F.cross_entropy(pred, targ)
    learn = make(MixedPrecision(max_loss_scale=2.**10))
    learn.loss_func = loss
    assert learn.fit(1).recorder.values[-1]['valid_loss'] > 0

def test_inputs_that_are_no_floats_and_several_inputs_pass():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.lin = nn.Embedding(5, 4), nn.Linear(10, 4)
            self.out = nn.Linear(8, 3)
        def forward(self, i, x): return self.out(torch.cat([self.emb(i), self.lin(x)], 1))
    ds = data()
    batches = [((torch.arange(20) % 5, x), y) for x, y in zip(ds.tensors[0].split(20), ds.tensors[1].split(20))]
    learn = Learner(Two(), (batches, batches), F.cross_entropy, cbs=MixedPrecision(max_loss_scale=2.**10), device='cpu',
                    progress=False).fit(2)
    assert learn.recorder.values[1]['valid_loss'] < learn.recorder.values[0]['valid_loss']

def test_a_recurrent_net_trains_and_comes_back():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.LSTM(1, 8, batch_first=True), nn.Linear(8, 3)
        def forward(self, x): return self.out(self.rnn(x[..., None])[0][:, -1])
    learn = make(MixedPrecision(max_loss_scale=2.**10), model=Last()).fit(1)
    assert_back(learn)

def test_hooks_and_statistics_of_chapter_07_go_on_working():
    stats = ActivationStats()
    make(MixedPrecision(max_loss_scale=2.**10), stats).fit(1)
    assert all(len(v) == 12 for v in stats.means.values())

@pytest.mark.parametrize('dtype', [torch.float64, HALF, torch.bfloat16])
def test_a_model_that_is_not_in_float32_is_refused(dtype):
    learn = make(MixedPrecision(), model=net(None).to(dtype))
    with pytest.raises(ValueError, match='starts from a model in float32, and 0.weight'): learn.fit(1)
    assert next(learn.model.parameters()).dtype == dtype and learn.contexts == []


# ---- state of the optimizer

@opts
@pytest.mark.parametrize('flat_master', [False, True])
def test_the_optimizers_memory_goes_with_the_weights_in_and_out(opt_func, flat_master):
    "float32, then half, then float32 again: as if all had been float32, to rounding."
    if flat_master and opt_func is optim.LAMB: return
    mixed = MixedPrecision(max_loss_scale=2.**10, flat_master=flat_master)
    a, b = (make(model=net(None), opt_func=opt_func) for _ in range(2))
    for learn, cbs in (a, None), (b, [mixed]):
        learn.fit(1)
        learn.fit(1, cbs=cbs)
        assert_back(learn)
        learn.fit(1)
    for p, q in zip(a.model.parameters(), b.model.parameters()):
        assert a.opt.state[p].keys() == b.opt.state[q].keys()
        for k, v in a.opt.state[p].items():
            w = b.opt.state[q][k]
            if k == 'step': assert int(v) == int(w) == 36
            if isinstance(v, torch.Tensor): assert v.shape == w.shape and v.dtype == w.dtype
            if isinstance(v, torch.Tensor) and v.shape == p.shape: assert (v - w).norm() < 0.1*v.norm() + 1e-6
    start = flat(net(None).parameters())
    assert (flat(weights(a)) - flat(weights(b))).norm() < 0.05*(flat(weights(a)) - start).norm()
    steps = [s['step'] for s in b.opt.state.values() if 'step' in s]
    assert len({id(s) for s in steps}) == len(steps) or not isinstance(steps[0], torch.Tensor)   # none shared

def test_a_memory_that_cannot_be_joined_is_refused_and_nothing_is_changed():
    learn = make(model=net(None))
    learn.model[0].requires_grad_(False)
    learn.fit(1)
    learn.model[0].requires_grad_(True)
    before, state = weights(learn), copy.deepcopy(learn.opt.state_dict())
    with pytest.raises(ValueError, match='reset_opt=True'): learn.fit(1, cbs=MixedPrecision(flat_master=True))
    assert_back(learn)
    for a, b in zip(before, weights(learn)): assert torch.equal(a, b)
    assert str(state) == str(learn.opt.state_dict())
    learn.fit(1, cbs=MixedPrecision(max_loss_scale=2.**10))

@pytest.mark.parametrize('flat_master', [False, True])
def test_groups_keep_their_rates_and_frozen_ones_their_bits(flat_master):
    split = lambda m: [m[0], m[1], m[3]]
    learn = make(MixedPrecision(max_loss_scale=2.**10, flat_master=flat_master), splitter=split)
    learn.fit_one_cycle(1, lr_max=[1e-3, 1e-3, 1e-2])
    learn.freeze_to(-1)
    before = weights(learn)
    learn.fit_one_cycle(1, lr_max=[1e-3, 1e-3, 1e-2])
    same = [torch.equal(a, b) for a, b in zip(before, weights(learn))]
    assert same == [True]*4 + [False]*2
    learn.unfreeze()
    learn.fit(1)
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(learn)))
    assert_back(learn)

def test_unfreezing_within_a_fit_works():
    split = lambda m: [m[:2], m[3]]
    learn = make(MixedPrecision(max_loss_scale=2.**10), splitter=split)
    learn.freeze()
    before, between = weights(learn), []
    thaw = At('before_epoch', lambda learn: learn.unfreeze() if learn.epoch else None, training=None)
    learn.fit(2, cbs=[thaw, At('after_train', lambda learn: between.append(copy.deepcopy(learn.model.state_dict())))])
    assert torch.equal(between[0]['0.weight'], before[0]) and not torch.equal(between[1]['0.weight'], before[0])

def test_tied_parameters_train_as_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.a, self.b, self.out = nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False), nn.Linear(10, 3)
            self.b.weight = self.a.weight
        def forward(self, x): return self.out(self.b(torch.relu(self.a(x))))
    runs = [make(*cbs, model=Tied()).fit(2) for cbs in ([], [MixedPrecision(max_loss_scale=2.**10)])]
    assert runs[1].model.a.weight is runs[1].model.b.weight
    assert_close(*(r.model.a.weight for r in runs), atol=5e-3, rtol=0.05)


# ---- whatever ends a fit

ENDS = [RuntimeError, KeyboardInterrupt, CancelFit]   # new ones for each test: exceptions gather notes
EVENTS = ['before_batch', 'after_pred', 'after_loss', 'before_backward', 'after_backward', 'before_step', 'after_step',
          'after_batch']

@both
@pytest.mark.parametrize('exc', ENDS)
@pytest.mark.parametrize('event', EVENTS)
@pytest.mark.parametrize('order', [-99, 99])
def test_the_model_is_back_in_float32_whatever_ends_the_fit(make_cb, exc, event, order):
    at = At(event, raiser(exc('ouch')), i=4, order=order)
    learn = make(make_cb(), at)
    try: learn.fit(1)
    except exc: pass
    assert_back(learn)
    learn.remove_cb(at)
    learn.fit(1)
    assert_back(learn)

@both
@pytest.mark.parametrize('event', ['before_fit', 'before_epoch', 'before_train', 'before_validate', 'after_validate',
                                   'after_epoch', 'after_fit'])
@pytest.mark.parametrize('order', [-99, 99])
def test_and_wherever_else(make_cb, event, order):
    learn = make(make_cb(), At(event, raiser(RuntimeError('ouch')), order=order, training=None))
    with pytest.raises(RuntimeError, match='ouch'): learn.fit(1)
    assert_back(learn)

@both
@pytest.mark.parametrize('flat_master', [False, True])
def test_an_error_within_validation_outside_a_fit_leaves_float32(make_cb, flat_master):
    cb = make_cb()
    learn = make(cb, model=net(None))
    with pytest.raises(RuntimeError, match='ouch'):
        learn.validate(cbs=At('after_pred', raiser(RuntimeError('ouch')), training=None))
    assert {p.dtype for p in learn.model.parameters()} == {torch.float32}
    learn.fit(1)
    learn.validate()
    assert_back(learn)


# ---- evaluation

@both
def test_validation_and_predictions_are_in_half_and_come_as_float32(make_cb):
    seen = []
    hook = lambda m, args, out: seen.append(out.dtype)
    learn = make(make_cb())
    learn.fit(1)
    last = learn.recorder.values[-1]
    handle = learn.model[3].register_forward_hook(hook)
    out = learn.validate()
    preds, targs = learn.get_preds()
    handle.remove()
    assert set(seen) == {HALF} and preds.dtype == torch.float32
    assert out['loss'] == pytest.approx(last['valid_loss'], abs=1e-6) and out['accuracy'] == last['accuracy']
    assert F.cross_entropy(preds, targs).item() == pytest.approx(out['loss'], abs=1e-5)
    assert (preds - learn.model.eval()(data(100, 1).tensors[0])).abs().max() < 0.02
    assert_back(learn)

@both
def test_validating_within_a_fit_and_within_a_validation(make_cb):
    losses = []
    look = At('after_step', lambda learn: losses.append(learn.validate()['loss']), i=5)
    busy = []
    def within(learn):
        if not busy:
            busy.append(1)
            losses.append(learn.validate()['loss'])
    nested = At('after_batch', within, training=False)
    plain = make(make_cb()).fit(1)
    learn = make(make_cb(), look).fit(1)
    for a, b in zip(weights(plain), weights(learn)): assert torch.equal(a, b)
    learn.validate(cbs=nested)
    assert losses[1] == pytest.approx(learn.validate()['loss'])
    assert_back(learn)

@both
def test_lr_find_leaves_no_trace(make_cb):
    learn = make(make_cb())
    learn.fit(1)
    before, state = weights(learn), copy.deepcopy(learn.opt.state_dict())
    cb = next(c for c in learn.cbs if isinstance(c, (MixedPrecision, AMP)))
    kept = cb.state_dict()
    curve = learn.lr_find(n=40)
    assert len(curve.losses) > 10 and cb.state_dict() == kept
    for a, b in zip(before, weights(learn)): assert torch.equal(a, b)
    assert str(state) == str(learn.opt.state_dict())
    assert_back(learn)


# ---- together with others

@both
@device
def test_clipping_sees_true_gradients(make_cb, device):
    norms = []
    for cbs in [], [make_cb()]:
        clip, at = GradientClip(0.1), []
        make(*cbs, clip, At('after_step', lambda learn: at.append(clip.norm.item())), model=net(None), device=device,
             opt_func=torch.optim.SGD).fit(1)
        norms.append(at)
    assert norms[0] == pytest.approx(norms[1], rel=0.02)

@both
@device
@pytest.mark.parametrize('drop_scale', [False, True])
def test_accumulation_is_one_big_batch_also_around_an_overflow(make_cb, device, drop_scale):
    "bs 10 in windows of two against bs 20; with an overflow, that step is left out in both."
    def spoiled(i): return [At('before_backward', overflow, i=i, order=12)] if drop_scale else []
    big = make(make_cb(), *spoiled(4), model=net(None), opt_func=torch.optim.SGD, lr=0.1, device=device).fit(1)
    two = make(make_cb(), GradientAccumulation(2), *spoiled(9), model=net(None), opt_func=torch.optim.SGD, lr=0.1,
               bs=10,
               device=device).fit(1)
    start = flat(net(None).parameters())
    a, b = (flat(weights(r)).cpu() for r in (big, two))
    assert (a - b).norm() < 0.01*(a - start).norm()
    for learn in big, two:
        cb = next(c for c in learn.cbs if isinstance(c, (MixedPrecision, AMP)))
        assert (cb.made, cb.skipped) == ((11, 1) if drop_scale else (12, 0))

@both
@pytest.mark.parametrize('order', [5, 30])
@pytest.mark.parametrize('dropped', [False, True])
def test_a_step_that_another_callback_cancels_keeps_its_gradients_or_drops_them(make_cb, order, dropped):
    def cancel(learn):
        if dropped: learn.opt.zero_grad()
        raise CancelStep
    runs = []
    for cbs in [], [make_cb()]:
        runs.append(make(*cbs, At('before_step', cancel, i=3, order=order), model=net(None), opt_func=torch.optim.SGD,
                         lr=0.1).fit(1))
    start = flat(net(None).parameters())
    a, b = (flat(weights(r)) for r in runs)
    assert (a - b).norm() < 0.01*(a - start).norm()

@both
@pytest.mark.parametrize('event, exc', [('before_step', CancelBatch), ('before_backward', CancelBackward),
                                        ('after_pred', CancelBatch)])
@pytest.mark.parametrize('order', [5, 30])
def test_cancelled_batches_and_backward_passes_do_as_in_float32(make_cb, event, exc, order):
    runs = [make(*cbs, At(event, raiser(exc()), i=3, order=order), At(event, raiser(exc()), i=0, order=order),
                 model=net(None),
                 opt_func=torch.optim.SGD, lr=0.1).fit(1) for cbs in ([], [make_cb()])]
    start = flat(net(None).parameters())
    a, b = (flat(weights(r)) for r in runs)
    assert (a - b).norm() < 0.01*(a - start).norm()

@both
def test_averages_are_of_masters(make_cb):
    runs = [make(*cbs, EMA(0.9), model=net(None)).fit(2) for cbs in ([], [make_cb()])]
    a, b = (flat(weights(r)) for r in runs)
    start = flat(net(None).parameters())
    assert (a - b).norm() < 0.02*(a - start).norm()
    assert runs[0].recorder.values[-1]['valid_loss'] == pytest.approx(runs[1].recorder.values[-1]['valid_loss'],
                                                                      abs=0.01)
    assert_back(runs[1])

def test_averages_of_tiny_steps_do_move():
    start = net(None)
    learn = make(MixedPrecision(max_loss_scale=2.**10), EMA(0.999), model=copy.deepcopy(start),
                 opt_func=torch.optim.SGD, lr=1e-4).fit(1)
    assert all(not torch.equal(a, b) for a, b in zip(start.parameters(), learn.model.parameters()))

class Stop(Callback):
    order = 99
    def __init__(self, epoch, i): self.at = epoch, i
    def after_batch(self, learn):
        if learn.training and (learn.epoch, learn.iter) == self.at: raise RuntimeError('power cut')

RICH = {'mixed': lambda: [MixedPrecision(scale_wait=5)],
        'flat': lambda: [MixedPrecision(scale_wait=5, flat_master=True)],
        'ema': lambda: [MixedPrecision(scale_wait=5), EMA(0.8), GradientAccumulation(2)],
        'amp16': lambda: [AMP(HALF, growth_interval=5, init_scale=2.**24), EMA(0.8)],
        'amp_acc': lambda: [AMP(HALF, growth_interval=5), GradientAccumulation(2)], 'ampb16': lambda: [AMP()]}

@pytest.mark.parametrize('cbs', RICH.values(), ids=RICH)
@pytest.mark.parametrize('opt_func', [torch.optim.AdamW, optim.AdamW], ids=['torch', 'ours'])
def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(cbs, opt_func, tmp_path):
    norm = None if cbs is RICH['flat'] else nn.BatchNorm1d
    fresh = lambda *more: make(*cbs(), *more, model=net(norm), opt_func=opt_func)
    whole = fresh().fit_one_cycle(2, lr_max=0.02)
    for at in (0, 3), (0, 11), (1, 5):
        folder = tmp_path/f'{at}'
        with pytest.raises(RuntimeError): fresh(Checkpoint(folder, every=1), Stop(*at)).fit_one_cycle(2, lr_max=0.02)
        state = read_checkpoint(folder)
        assert {t.dtype for t in state['model'].values() if t.is_floating_point()} == {torch.float32}
        again = fresh(Checkpoint(folder))
        torch.manual_seed(99)
        again.fit_one_cycle(resume=folder)
        for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values()): assert torch.equal(a, b)
        assert whole.recorder.losses == again.recorder.losses
        assert_back(again)

def test_a_checkpoint_holds_the_masters_and_the_best_file_too(tmp_path):
    masters = []
    look = At('after_epoch',
              lambda learn: masters.append([p.detach().clone() for g in learn.opt.param_groups for p in g['params']]),
              training=None, order=85)
    make(MixedPrecision(max_loss_scale=2.**10), look, Checkpoint(tmp_path)).fit(1)
    for saved in read_checkpoint(tmp_path)['model'], read_tensors(tmp_path/'best.safetensors')[0]:
        for m, k in zip(masters[0], ('0.weight', '0.bias', '1.weight', '1.bias', '3.weight', '3.bias')):
            assert torch.equal(saved[k], m)

def test_weights_loaded_within_a_fit_reach_the_masters(tmp_path):
    other = net(seed=7)
    learn = make(MixedPrecision(max_loss_scale=2.**10),
                 At('before_epoch', lambda learn: learn.model.load_state_dict(other.state_dict()),
                                                             training=None), lr=0.)
    learn.fit(1, wd=0.)
    for p, q in zip(learn.model.parameters(), other.parameters()): assert torch.equal(p, q)


# ---- AMP

@device
@pytest.mark.parametrize('dtype', [torch.bfloat16, HALF])
@opts
def test_amp_trains_like_float32(dtype, opt_func, device):
    runs = [make(*cbs, model=net(None), opt_func=opt_func, device=device).fit(2) for cbs in ([], [AMP(dtype)])]
    start = flat(net(None).parameters())
    a, b = (flat(weights(r)).cpu() for r in runs)
    assert (a - b).norm() < 0.2*(a - start).norm()
    assert abs(runs[0].recorder.values[-1]['valid_loss'] - runs[1].recorder.values[-1]['valid_loss']) < 0.05
    assert_back(runs[1])

def test_amp_is_the_loop_that_pytorch_documents():
    model, ds = net(None), data()
    learn = make(AMP(HALF), GradientClip(0.5), model=copy.deepcopy(model)).fit(2)
    opt, scaler = torch.optim.AdamW(model.parameters(), lr=0.01), torch.amp.GradScaler('cpu')
    dls = get_dls(ds, bs=20)
    for epoch in range(2):
        for xb, yb in dls.train:
            opt.zero_grad()
            with torch.autocast('cpu', HALF): loss = F.cross_entropy(model(xb).float(), yb)
            scaler.scale(loss).backward()
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            scaler.step(opt)
            scaler.update()
    for p, q in zip(model.parameters(), learn.model.parameters()): assert torch.equal(p, q)

def test_amp_skips_and_recovers():
    amp, made = AMP(HALF, init_scale=1024., growth_interval=4), []
    learn = make(amp, At('before_backward', overflow, i=3),
                 At('after_step', lambda learn: made.append((learn.iter, amp.loss_scale)))).fit(1)
    assert [i for i, _ in made] == [i for i in range(12) if i != 3] and amp.skipped == 1
    assert made[3] == (4, 512.) and made[6] == (7, 1024.)
    assert {int(s['step']) for s in learn.opt.state.values()} == {11}

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@pytest.mark.parametrize('fused', [False, True])
def test_amp_notices_a_skipped_step_of_a_fused_optimizer(fused):
    amp, made = AMP(HALF, init_scale=1024.), []
    make(amp, At('before_backward', overflow, i=3), At('after_step', lambda learn: made.append(learn.iter)),
         device='cuda',
         opt_func=partial(torch.optim.AdamW, fused=fused)).fit(1)
    assert made == [i for i in range(12) if i != 3]

def test_mistakes_get_a_sentence():
    with pytest.raises(ValueError, match='torch.bfloat16 or torch.float16'): AMP(torch.float32)
    with pytest.raises(ValueError, match='bfloat16 does not need'): AMP(init_scale=4.)
    learn = make(MixedPrecision(), AMP())
    with pytest.raises(ValueError, match='the same work'): learn.fit(1)
    assert_back(learn)
    with pytest.raises(ValueError, match='There is a MixedPrecision already'): make(MixedPrecision(), MixedPrecision())

def test_the_activations_take_half():
    def kept(model, x):
        seen, own = {}, {p.data_ptr() for p in model.parameters()}
        def note(t):
            if t.data_ptr() not in own: seen[t.data_ptr()] = t.nbytes
            return t
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t): out = model(x)   # noqa: F841 (it holds them)
        return sum(seen.values())
    model, x = nn.Sequential(*[m for _ in range(5) for m in (nn.Linear(64, 64), nn.ReLU())]), torch.randn(100, 64)
    full = kept(model, x)
    assert kept(model_to_half(model), x.half()) == full / 2

def test_exports():
    assert {'MixedPrecision', 'AMP', 'bn_to_float', 'model_to_half', 'get_master', 'to_master_grads', 'to_model_params',
            'grad_overflow'} <= set(fp16.__all__)
