"Hooks, what they gather, and the summary of a model (chapter 07)."
import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from minidl import hooks
from minidl.hooks import ActivationStats, GeneralRelu, Hook, Hooks, HooksCallback, find_layers, model_summary
from minidl.learner import (EMA, Callback, CancelBatch, CancelFit, Checkpoint, GradientAccumulation, Learner,
                            SanityCheck, accuracy)
from minidl.training import DataLoaders, get_dls


def digits(n=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, 1, 8, 8, generator=g), torch.randint(0, 3, (n,), generator=g))

def loaders(): return get_dls(digits(), digits(20, 1), bs=16, valid_bs=10)   # batches of 16, 16, 8; 10, 10

def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU()),
                         nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU()),
                         nn.Flatten(), nn.Linear(24, 3))

def make(*cbs, model=None, dls=None, **kw):
    return Learner(model or net(), dls or loaders(), F.cross_entropy, torch.optim.SGD, lr=0.1, cbs=cbs, progress=False,
                   device='cpu', **kw)

def n_hooks(model):
    kinds = '_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks'
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)

def nothing(hook, module, inp, outp): pass
def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]
def assert_equal(a, b): assert len(a) == len(b) and all(torch.equal(s, t) for s, t in zip(a, b))

class At(Callback):
    "Does something at an event."
    def __init__(self, event, f): setattr(self, event, f)

def throw(e):
    def f(learn): raise e
    return f


# ---- Hook and Hooks

def test_a_hook_is_called_with_itself_the_module_its_inputs_and_its_output():
    model, x, seen = net(), torch.randn(2, 1, 8, 8), []
    with Hook(model[3], lambda *args: seen.append(args)) as hook: out = model(x)
    (h, module, inp, outp), = seen
    assert h is hook and module is model[3] and outp is out
    torch.testing.assert_close(inp[0], model[:3](x))
    model(x)
    assert len(seen) == 1 and n_hooks(model) == 0

def test_what_a_hook_returns_replaces_the_output_and_none_does_not():
    model, x = net(), torch.randn(2, 1, 8, 8)
    with Hook(model[3], lambda h, m, i, o: o + 1): more = model(x)
    with Hook(model[3], nothing): same = model(x)
    torch.testing.assert_close(more, model(x) + 1)
    torch.testing.assert_close(same, model(x))

@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize('backward', [False, True])
def test_hooks_come_off_after_an_error(error, backward):
    model = net()
    with pytest.raises(error):
        with Hooks(model, nothing, backward), Hook(model[0][0], nothing, backward):
            assert n_hooks(model) == 5
            raise error
    assert n_hooks(model) == 0

def test_an_error_in_the_hook_itself_ends_the_pass_and_the_hook():
    model = net()
    with pytest.raises(ZeroDivisionError), Hook(model[0], lambda *args: 1/0): model(torch.randn(2, 1, 8, 8))
    assert n_hooks(model) == 0

def test_hooks_that_cannot_all_go_up_leave_none():
    model = net()
    with pytest.raises(TypeError, match='goes on an nn.Module, not on a str'):
        Hooks([model[0], model[1], 'no'], nothing)
    def broken():
        yield model[0]
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): Hooks(broken(), nothing)
    assert n_hooks(model) == 0

def test_removing_leaves_other_peoples_hooks_and_works_twice():
    model = net()
    model[0].register_forward_hook(lambda *args: None)
    hooks = Hooks(model, nothing)
    for _ in range(2): hooks.remove()
    assert n_hooks(model) == 1

def test_hooks_are_a_sequence():
    model = net()
    with Hooks(model, nothing) as hooks:
        assert len(hooks) == 4 and hooks[0] is list(hooks)[0] and hooks[-1] is list(hooks)[3] and len(hooks[1:3]) == 2

@pytest.mark.parametrize('wrong, sentence', [
    (lambda: Hook(F.relu, nothing), 'goes on an nn.Module'), (lambda: Hook(nn.ReLU(), 3), 'calls a function'),
    (lambda: Hooks(nn.ReLU(), nothing), 'put it in a list'),
    (lambda: HooksCallback(nothing, train=False), 'nothing to listen to'),
    (lambda: HooksCallback(nothing, train=False, valid=True, backward=True), 'nothing to listen to'),
    (lambda: ActivationStats(bins=0), 'at least 1'), (lambda: ActivationStats(limits=(1, 1)), 'limits'),
    (lambda: ActivationStats(max_batches=0), 'at least 1'),
    (lambda: ActivationStats().means, 'fit a learner'), (lambda: ActivationStats().color_dim(), 'fit a learner'),
    (lambda: make(ActivationStats(nn.LSTM)).fit(1), 'No layer'),
    (lambda: make(ActivationStats([nn.ReLU()])).fit(1), 'no layer of this model')])
def test_wrong_use_gets_a_sentence(wrong, sentence):
    with pytest.raises((TypeError, ValueError, RuntimeError), match=sentence): wrong()

def test_a_backward_hook_gets_the_gradients_that_autograd_computes():
    layer, x = nn.Linear(4, 3), torch.randn(5, 4, requires_grad=True)
    seen = []
    with Hook(layer, lambda hook, m, gi, go: seen.append((gi[0], go[0])), backward=True):
        out = layer(x)
        (out**2).sum().backward()
    torch.testing.assert_close(seen[0][1], 2*out)
    torch.testing.assert_close(seen[0][0], x.grad)

def test_a_copy_of_a_model_calls_the_copy_of_the_hook():
    model, x = net(), torch.randn(2, 1, 8, 8)
    def count(hook, *args): hook.n = getattr(hook, 'n', 0) + 1
    with Hook(model[0], count) as hook:
        twin = copy.deepcopy(model)
        twin(x)
        assert not hasattr(hook, 'n')
        model(x)
        assert hook.n == 1
    assert n_hooks(model) == 0 and n_hooks(twin) == 1

def test_layers_are_found_by_children_kind_function_and_list():
    model = net()
    assert list(find_layers(model)) == ['0', '1', '2', '3']
    assert list(find_layers(model, nn.ReLU)) == ['0.1', '1.1']
    assert list(find_layers(model, (nn.ReLU, nn.Linear))) == ['0.1', '1.1', '3']
    assert list(find_layers(model, lambda m: isinstance(m, nn.Conv2d))) == ['0.0', '1.0']
    assert list(find_layers(model, [model[3], model[0], model[3]])) == ['3', '0']
    assert list(find_layers(model, model[0])) == ['0'] and list(find_layers(nn.Linear(2, 2))) == ['Linear']
    nested = nn.ModuleDict({'a': nn.ModuleList([nn.ReLU(), nn.Linear(2, 2)]), 'b': nn.Tanh()})
    assert list(find_layers(nested)) == ['a.0', 'a.1', 'b']
    shared = nn.Linear(2, 2)
    assert list(find_layers(nn.Sequential(shared, nn.ReLU(), shared))) == ['0', '1']


# ---- HooksCallback

def counting():
    seen = []
    return seen, lambda hook, m, i, o: seen.append(hook.name)

def test_it_hears_each_layer_once_a_training_batch_and_is_off_after_the_fit():
    seen, f = counting()
    learn = make(HooksCallback(f)).fit(2)
    assert seen == ['0', '1', '2', '3']*6 and n_hooks(learn.model) == 0
    learn.validate(), learn.get_preds(), learn.model(torch.randn(1, 1, 8, 8))
    assert len(seen) == 24
    learn.fit(1)
    assert len(seen) == 36 and n_hooks(learn.model) == 0

@pytest.mark.parametrize('train, valid, n', [(True, False, 3), (False, True, 2), (True, True, 5)])
def test_it_hears_training_or_validation_or_both(train, valid, n):
    seen, f = counting()
    make(HooksCallback(f, nn.Linear, train, valid)).fit(1)
    assert seen == ['3']*n

def test_only_the_loops_own_passes_count():
    seen, f = counting()
    extra = torch.randn(2, 1, 8, 8)
    call = lambda learn: learn.model(extra)
    others = [At(e, call) for e in ('before_epoch', 'after_loss', 'after_backward', 'after_step', 'after_batch',
                                    'after_train', 'after_validate')]
    others += [At('after_loss', lambda learn: learn.validate() if learn.fitting else None),
               At('after_batch', lambda learn: learn.get_preds() if learn.fitting else None)]
    make(HooksCallback(f), *others).fit(1)
    assert len(seen) == 4*3

def test_a_backward_pass_is_heard_once_a_training_batch_even_if_a_callback_validates():
    seen, f = counting()
    validate = At('after_loss', lambda learn: learn.validate() if learn.fitting and learn.training else None)
    learn = make(HooksCallback(f, nn.Linear, backward=True), validate, GradientAccumulation(2)).fit(1)
    assert seen == ['3']*3 and n_hooks(learn.model) == 0

@pytest.mark.parametrize('event', ['before_fit', 'before_epoch', 'before_batch', 'after_pred', 'after_loss',
                                   'after_step', 'before_validate', 'after_fit'])
@pytest.mark.parametrize('order', [-1000, 1000])
@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt, CancelFit])
def test_hooks_come_off_whatever_ends_the_fit(event, order, error):
    other = At(event, throw(error()))
    other.order = order
    learn = make(ActivationStats(), other)
    try: learn.fit(1)
    except (RuntimeError, KeyboardInterrupt): pass
    assert n_hooks(learn.model) == 0
    learn.remove_cb(other)
    learn.fit(1)
    assert len(learn.cb(ActivationStats).means['0']) == 3 and n_hooks(learn.model) == 0

def test_a_batch_cancelled_before_the_forward_pass_leaves_no_row():
    stats = ActivationStats()
    other = At('before_batch',
               lambda learn: throw(CancelBatch())(learn) if learn.training and learn.iter == 1 else None)
    other.order = 99
    make(stats, other).fit(1)
    assert len(stats.means['3']) == 2

def test_after_a_cancelled_batch_it_does_not_go_on_listening():
    stats = ActivationStats()
    cancel = At('before_batch',
                lambda learn: throw(CancelBatch())(learn) if learn.training and learn.iter == 2 else None)
    cancel.order = 99
    make(stats, cancel, At('after_train', lambda learn: learn.model(torch.randn(2, 1, 8, 8)))).fit(1)
    assert len(stats.means['3']) == 2

def test_a_validation_by_a_callback_is_not_the_loops_even_where_validation_counts():
    seen, f = counting()
    validate = At('after_train', lambda learn: (learn.validate(), learn.get_preds()))
    make(HooksCallback(f, nn.Linear, train=True, valid=True), validate).fit(1)
    assert seen == ['3']*5


# ---- ActivationStats

def direct(outs, near=0.05, bins=50, lo=-5., hi=5.):
    flat = [o.detach().double().flatten() for o in outs]
    hists = [np.histogram(o.clamp(lo, hi).numpy(), bins, (lo, hi))[0] for o in flat]
    return (torch.stack([o.mean() for o in flat]), torch.stack([o.std(correction=0) for o in flat]),
            torch.tensor([(o.abs() <= near).double().mean() for o in flat]), torch.tensor(np.stack(hists)))

def test_its_numbers_are_those_computed_directly():
    kept = {}
    class Keep(Callback):
        order = 1000
        def after_pred(self, learn):
            if not learn.training: return
            x = learn.xb
            for i, layer in enumerate(learn.model):
                x = layer(x)
                kept.setdefault(str(i), []).append(x.detach().clone())
    stats = ActivationStats()
    make(stats, Keep()).fit(2)
    for name, outs in kept.items():
        means, stds, near, hists = direct(outs)
        torch.testing.assert_close(stats.means[name].double(), means, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(stats.stds[name].double(), stds, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(stats.near_zero[name].double(), near, atol=1e-6, rtol=0)
        assert (stats.hists[name].sum(1) == torch.tensor([o.numel() for o in outs])).all()
        assert (stats.hists[name] - hists).abs().sum() <= 4      # a number on the border of two bins may round
        assert stats.batches[name] == list(range(6))

def test_what_is_outside_of_the_limits_counts_in_the_end_bins():
    _, hist = hooks._measure(torch.tensor([-9., -1, 0.1, 1.9, 2, 7, float('inf')]), 0.05, 4, (-2., 2.))
    assert hist.tolist() == [1, 1, 1, 4]

@pytest.mark.parametrize('shift', [0., 1000.])
def test_the_std_holds_far_from_zero(shift):
    t = torch.randn(1000) + shift
    (_, std, _), _ = hooks._measure(t, 0.05, 10, (-5., 5.))
    torch.testing.assert_close(std, t.double().std(correction=0).float(), rtol=1e-3, atol=0)

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_it_measures_any_type_of_number(dtype):
    numbers, hist = hooks._measure(torch.tensor([0, 1, 2, 3]).to(dtype), 0.05, 5, (0., 5.))
    assert numbers.dtype == torch.float32 and hist.sum() == 4 and numbers[2] == 0.25

def test_nan_and_infinite_outputs_do_not_stop_a_fit():
    class Bad(nn.Module):
        def forward(self, x): return x*float('nan')
    stats = ActivationStats()
    make(stats, model=nn.Sequential(net(), Bad())).fit(1)
    assert stats.means['1'].isnan().all() and stats.means['0'].isfinite().any()
    for draw in stats.plot_stats, stats.dead_chart, stats.color_dim: draw()

def test_tuples_count_by_their_first_tensor_and_layers_called_twice_get_two_rows_a_batch():
    class Rnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(8, 3, batch_first=True), nn.Linear(3, 3)
        def forward(self, x):
            h, _ = self.lstm(x[:, 0])
            return self.head(self.head(h[:, -1]))
    stats = ActivationStats(max_batches=2)
    make(stats, model=Rnn()).fit(1)
    assert stats.batches == {'lstm': [0, 2], 'head': [0, 0, 2, 2]} and stats.hists['lstm'][0].sum() == 16*8*3
    stats.plot_stats()

def test_memory_is_bounded_and_the_rows_span_the_fit():
    dls = get_dls(digits(), digits(20, 1), bs=2)
    stats = ActivationStats(max_batches=8)
    make(stats, dls=dls).fit(5)                                  # 100 batches
    assert stats.batches['0'] == list(range(0, 100, 16)) and stats.seen == 100
    every = ActivationStats()
    make(every, dls=dls).fit(5)
    torch.testing.assert_close(stats.means['3'], every.means['3'][::16])

class NoWaiting(Callback):
    "In training no tensor may be asked for its number or copied to the CPU: on a GPU that waits."
    order = -1000
    def __init__(self, monkeypatch): self.monkeypatch = monkeypatch
    def before_train(self, learn):
        def refuse(self, *args): raise AssertionError('asked a tensor for its number')
        for name in '__float__ __int__ __bool__ __index__ item tolist numpy cpu'.split():
            self.monkeypatch.setattr(torch.Tensor, name, refuse)
    def after_train(self, learn): self.monkeypatch.undo()
    def after_fit(self, learn): self.monkeypatch.undo()

@pytest.mark.filterwarnings('ignore:Full backward hook')
def test_nothing_waits_for_the_device_in_training():
    dls = DataLoaders(list(loaders().train), list(loaders().valid))   # the shuffling itself asks for indices
    stats = ActivationStats(max_batches=2)
    learn = make(stats, HooksCallback(nothing, backward=True), dls=dls)
    learn.remove_cb(learn.cb(SanityCheck))
    with pytest.MonkeyPatch.context() as patch: learn.fit(2, cbs=NoWaiting(patch))
    assert stats.batches['0'] == [0, 4]

@pytest.mark.filterwarnings('ignore:Full backward hook')
def test_watching_changes_nothing():
    plain, watched = make().fit(2), make(ActivationStats(), HooksCallback(nothing, backward=True)).fit(2)
    assert_equal(weights(plain), weights(watched))
    keep = lambda m: {n: sorted(vars(x)) for n, x in m.named_modules()}
    assert list(watched.model.state_dict()) == list(net().state_dict()) and keep(watched.model) == keep(net())

def test_it_keeps_no_graph_and_no_activation():
    stats = ActivationStats()
    make(stats).fit(1)
    for rows in stats.rows.values():
        for _, numbers, hist in rows: assert not numbers.requires_grad and numbers.numel() == 3 and hist.numel() == 50

def test_accumulating_gradients_counts_each_batch_once():
    stats = ActivationStats()
    make(stats, GradientAccumulation(3), EMA()).fit(2)
    assert stats.batches['1'] == list(range(6))

def test_a_second_fit_starts_anew_and_validation_alone_adds_nothing():
    stats = ActivationStats()
    learn = make(stats).fit(2)
    learn.validate()
    assert len(stats.means['0']) == 6
    learn.fit(1)
    assert len(stats.means['0']) == 3

def test_lr_find_leaves_its_rows_alone():
    stats = ActivationStats()
    learn = make(stats).fit(1)
    before = stats.means
    learn.lr_find()
    assert_equal(list(before.values()), list(stats.means.values()))
    assert n_hooks(learn.model) == 0

def test_a_resumed_fit_can_be_watched(tmp_path):
    make(ActivationStats(), Checkpoint(tmp_path),
         At('before_epoch', lambda learn: throw(CancelFit())(learn) if learn.epoch == 1 else None)).fit(2)
    stats = ActivationStats()
    learn = make(stats, Checkpoint(tmp_path)).fit(resume=tmp_path)
    assert len(stats.means['0']) == 3
    assert_equal(weights(learn), weights(make().fit(2)))

def test_a_copied_learner_has_stats_of_its_own():
    learn = make(ActivationStats()).fit(1)
    twin = copy.deepcopy(learn)
    twin.fit(2)
    assert len(learn.cb(ActivationStats).means['0']) == 3 and len(twin.cb(ActivationStats).means['0']) == 6

def test_a_learner_copied_in_the_middle_of_a_fit_does_not_report_to_the_original():
    twins = []
    learn = make(ActivationStats(),
                 At('after_batch', lambda learn: twins.append(copy.deepcopy(learn.model)) if not twins else None))
    learn.fit(1)
    for twin in twins: twin(torch.randn(2, 1, 8, 8))
    assert len(learn.cb(ActivationStats).means['0']) == 3 and n_hooks(learn.model) == 0

@pytest.mark.parametrize('n_layers', [1, 4, 20])
def test_the_pictures_have_an_axis_for_each_layer_and_a_line_for_each_layer(n_layers):
    import matplotlib.pyplot as plt
    if n_layers == 1: model = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    else: model = nn.Sequential(nn.Flatten(), *[nn.Linear(64, 64) for _ in range(n_layers - 2)], nn.Linear(64, 3))
    stats = ActivationStats()
    make(stats, model=model).fit(1)
    axs = stats.plot_stats()
    assert [len(ax.lines) for ax in axs] == [n_layers]*2 and [ax.get_ylabel() for ax in axs] == ['mean', 'std']
    torch.testing.assert_close(torch.tensor(axs[0].lines[0].get_ydata()), stats.means['0'])
    assert len(stats.dead_chart()[0].lines) == n_layers
    images = [ax.images[0] for ax in stats.color_dim().flat if ax.images]
    assert len(images) == n_layers and images[0].get_array().shape == (50, 3)
    plt.gcf().canvas.draw()
    plt.close('all')


# ---- GeneralRelu

def test_general_relu_is_relu_with_a_slope_a_shift_and_a_ceiling():
    x = torch.linspace(-3, 9, 101)
    torch.testing.assert_close(GeneralRelu()(x), F.relu(x))
    torch.testing.assert_close(GeneralRelu(0.1)(x), F.leaky_relu(x, 0.1))
    torch.testing.assert_close(GeneralRelu(0.1, 0.4, 6.)(x), (torch.where(x > 0, x, 0.1*x) - 0.4).clamp(max=6))
    torch.testing.assert_close(GeneralRelu(maxv=0)(x), torch.zeros(101))
    assert repr(GeneralRelu(0.1, sub=0.4)) == 'GeneralRelu(leak=0.1, sub=0.4, maxv=None)'

@pytest.mark.parametrize('args', [(), (0.1,), (None, 0.4), (0.1, 0.4, 1.)])
def test_general_relu_has_the_right_gradient_and_leaves_its_input_alone(args):
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    assert torch.autograd.gradcheck(GeneralRelu(*args), x + 0.)
    GeneralRelu(*args)(x)
    assert torch.equal(x.detach(), before)


# ---- model_summary

class Attention(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.mha = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=batch_first)
    def forward(self, q, k, v): return self.mha(q, k, v)[0]

MODELS = {
    'conv': (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(),
                                   nn.Conv2d(6, 12, 5, padding=2, groups=3)), lambda: torch.randn(2, 4, 9, 11)),
    'dilated': (lambda: nn.Conv2d(3, 5, 3, dilation=2, bias=False), lambda: torch.randn(2, 3, 12, 12)),
    'conv1d': (lambda: nn.Conv1d(3, 5, 4, 3), lambda: torch.randn(2, 3, 20)),
    'conv3d': (lambda: nn.Conv3d(2, 3, 3), lambda: torch.randn(2, 2, 5, 6, 7)),
    'transposed': (lambda: nn.ConvTranspose2d(4, 6, 3, 2, groups=2), lambda: torch.randn(2, 4, 5, 6)),
    'linear': (lambda: nn.Sequential(nn.Linear(7, 5), nn.LayerNorm((6, 5)), nn.Linear(5, 3, bias=False)),
               lambda: torch.randn(2, 6, 7)),
    'embedding': (lambda: nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3)), lambda: torch.randint(0, 9, (2, 5))),
    'attention': (lambda: Attention(True), lambda: (torch.randn(2, 5, 8), torch.randn(2, 7, 6), torch.randn(2, 7, 4))),
    'attention, sequence first': (lambda: Attention(False),
                                  lambda: (torch.randn(5, 2, 8), torch.randn(7, 2, 6), torch.randn(7, 2, 4))),
    'transformer': (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), lambda: torch.randn(2, 5, 8))}

@pytest.mark.parametrize('name', MODELS)
def test_multiply_adds_are_half_of_the_operations_that_torch_counts(name):
    make_model, make_x = MODELS[name]
    model, x = make_model(), make_x()
    summary = model_summary(model, x)
    # in train mode, with a graph: no fast path
    with FlopCounterMode(display=False) as counter: model(*x) if isinstance(x, tuple) else model(x)
    assert 2*summary.macs == counter.get_total_flops() > 0 and summary.complete
    assert summary.n_params == sum(p.numel() for p in model.parameters()) == sum(r['params'] for r in summary.rows)
    for row in summary.rows: assert row['calls'] == 1

def test_parameters_and_multiply_adds_of_each_layer_as_counted_by_hand():
    s = model_summary(net(), torch.randn(10, 1, 8, 8))
    assert [(r['name'], r['type'], r['shape'], r['params'], r['macs']) for r in s.rows] == [
        ('0.0', 'Conv2d', (10, 4, 4, 4), 4*9 + 4, 10*4*16*9), ('0.1', 'ReLU', (10, 4, 4, 4), 0, 0),
        ('1.0', 'Conv2d', (10, 6, 2, 2), 6*4*9 + 6, 10*6*4*36), ('1.1', 'ReLU', (10, 6, 2, 2), 0, 0),
        ('2', 'Flatten', (10, 24), 0, 0), ('3', 'Linear', (10, 3), 75, 10*72)]
    assert s.n_params == s.n_trainable == 40 + 222 + 75 and s.macs == 5760 + 8640 + 720

@pytest.mark.parametrize('kind, gates', [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers_multiply_their_matrices_at_every_step(kind, gates):
    rnn = kind(5, 7, num_layers=2, bidirectional=True)
    by_hand = 3*4 * 2*gates*7 * ((5 + 7) + (14 + 7))             # steps, directions and gates, both layers
    assert model_summary(rnn, torch.randn(4, 3, 5)).macs == by_hand
    packed = nn.utils.rnn.pack_sequence([torch.randn(4, 5), torch.randn(2, 5)])
    s = model_summary(rnn, [packed])
    assert s.macs == by_hand//12*6 and s.rows[0]['shape'] == (6, 14)
    cell = {nn.RNN: nn.RNNCell, nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell}[kind](5, 7)
    assert model_summary(cell, torch.randn(3, 5)).macs == 3*gates*7*12
    with FlopCounterMode(display=False) as counter: cell(torch.randn(3, 5))
    assert counter.get_total_flops() == 2*3*gates*7*12

def test_a_projected_lstm_counts_its_projection():
    s = model_summary(nn.LSTM(5, 7, proj_size=2), torch.randn(4, 3, 5))
    assert s.macs == 12*(4*7*(5 + 2) + 7*2)

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(2, 2)
        self.b.weight = self.a.weight                            # tied
        self.scale = nn.Parameter(torch.ones(4))
        self.a.bias.requires_grad_(False)
        self.c.requires_grad_(False)
    def forward(self, x): return self.c(self.c(self.b(self.a(x))))*self.scale

def test_shared_layers_and_weights_count_once_and_what_is_frozen_or_unused_shows():
    model = Odd()
    s = model_summary(model, torch.randn(3, 4))
    rows = {r['name']: r for r in s.rows}
    assert {n: (r['params'], r['macs'], r['calls'], r['trainable']) for n, r in rows.items()} == {
        'a': (20, 48, 1, 'partly'), 'b': (4, 48, 1, 'yes'), 'c': (20, 96, 2, 'no'), '': (4, 0, 1, 'yes'),
        'unused': (6, 0, 0, 'yes')}
    assert s.n_params == 54 == sum(r['params'] for r in s.rows) and s.n_trainable == 54 - 4 - 20
    assert 'not called' in repr(s) and 'Linear x2' in repr(s) and '54 parameters, 30 of them trainable' in repr(s)

def test_an_unknown_layer_with_a_matrix_is_said_to_be_unknown():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.scale = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.ones(1, 4, 1))
        def forward(self, x): return x @ self.w
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.mult = nn.Parameter(torch.ones(1, 4))
        def forward(self, x): return x*self.mult
    s = model_summary(nn.Sequential(Mine(), Scale(), nn.Linear(4, 2)), torch.randn(3, 4))
    assert not s.complete and [r['macs'] for r in s.rows] == [None, 0, 24]
    assert 'at least 24' in repr(s) and '?' in repr(s)

def test_parametrized_layers_get_one_row_with_all_their_parameters():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    s = model_summary(nn.Sequential(layer), torch.randn(2, 4))
    assert len(s.rows) == 1 and s.rows[0]['params'] == 12 + 3 + 3 and s.macs == 24

class Stateful(nn.Module):
    "Keeps a state and draws random numbers in eval mode too."
    def __init__(self):
        super().__init__()
        self.state, self.lin = [torch.zeros(2)], nn.Linear(4, 4)
        self.register_buffer('n', torch.zeros(()))
    def forward(self, x):
        self.state[0] = self.state[0] + 1
        self.last = x
        self.n += 1
        random.random(), np.random.rand()
        return F.dropout(self.lin(x), training=True)

def test_a_summary_leaves_no_trace():
    model = nn.Sequential(Stateful(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    model[3].eval()                                              # a frozen norm in a model that trains
    model(torch.randn(8, 4)).sum().backward()
    keep = lambda: ([m.training for m in model.modules()], {k: v.clone() for k, v in model.state_dict().items()},
                    [p.grad.clone() for p in model.parameters()], model[0].state[0].clone(), sorted(vars(model[0])),
                    torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy(), n_hooks(model),
                    model[0].last)
    before = keep()
    model_summary(model, torch.zeros(1, 4))     # one item: in training mode a batch norm would refuse it
    with pytest.raises(RuntimeError): model_summary(model, torch.zeros(1, 5))
    after = keep()
    assert before[0] == after[0] and before[4] == after[4] and before[6] == after[6] and before[8] == after[8] == 0
    assert_equal(list(before[1].values()), list(after[1].values()))
    assert_equal(before[2], after[2])
    assert torch.equal(before[3], after[3]) and torch.equal(before[5], after[5])
    assert (before[7] == after[7]).all() and before[9] is after[9]

def test_a_summary_in_the_middle_of_training_does_not_change_it():
    def look(learn): learn.summary()
    plain = make(dls=loaders()).fit(2)
    looked = make(At('after_step', look), At('before_validate', look), ActivationStats(), dls=loaders()).fit(2)
    assert_equal(weights(plain), weights(looked))

def test_a_learner_takes_its_first_training_batch_and_a_shuffling_loader_stays_where_it_was():
    learn = make()
    assert learn.summary().rows[0]['shape'] == (16, 4, 4, 4)
    assert model_summary(learn, torch.randn(2, 1, 8, 8)).rows[0]['shape'][0] == 2
    g = torch.Generator().manual_seed(3)
    dl = DataLoader(digits(), 8, shuffle=True, generator=g)
    learn, state = make(dls=DataLoaders(dl, None)), g.get_state()
    assert learn.summary().rows[0]['shape'][0] == 8 and torch.equal(g.get_state(), state)

def test_a_summary_takes_tuples_and_dicts():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(4, 2)
        def forward(self, a, b): return {'out': self.lin(a + b)}
    x = torch.randn(3, 4)
    for xb in (x, x), dict(a=x, b=x): assert model_summary(Two(), xb).macs == 24

@pytest.mark.parametrize('wrong, error, sentence', [
    (lambda: model_summary(net()), ValueError, 'give it one'),
    (lambda: model_summary(Learner(net(), progress=False)), ValueError, 'give it one'),
    (lambda: model_summary(F.relu, torch.randn(2)), TypeError, 'takes a model or a Learner'),
    (lambda: model_summary(nn.LazyLinear(3), torch.randn(2, 4)), ValueError, 'pass one batch through it first')])
def test_a_summary_that_cannot_be_gets_a_sentence(wrong, error, sentence):
    with pytest.raises(error, match=sentence): wrong()

def test_a_batch_of_the_wrong_shape_names_the_last_layer_that_ran():
    model = net()
    with pytest.raises(RuntimeError) as e: model_summary(model, torch.randn(2, 1, 16, 16))
    assert 'layers that ran: 0.0, 0.1, 1.0, 1.1, 2' in '\n'.join(e.value.__notes__) and n_hooks(model) == 0

def test_the_table_has_a_line_for_each_layer_and_columns_that_line_up():
    s = model_summary(net(), torch.randn(2, 1, 8, 8))
    lines = repr(s).split('\n')
    assert len(lines) == 1 + 1 + 6 + 1 + 2 and lines[0].split()[0] == 'layer'
    assert '3,024 multiply-adds for a batch of shape (2, 1, 8, 8)' in lines[-1]
    assert len({line.index(')') for line in lines[2:4]}) == 1


# ---- on a GPU

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_on_cuda_the_rows_stay_there_and_no_step_waits():
    dls = DataLoaders([(x.cuda(), y.cuda()) for x, y in loaders().train], None)
    stats = ActivationStats()
    learn = Learner(net(), dls, F.cross_entropy, torch.optim.SGD, lr=0.1, cbs=stats, progress=False, device='cuda')
    learn.remove_cb(learn.cb(SanityCheck))
    learn.fit(1)                                                 # warm up: libraries may wait once
    strict = [At('before_train', lambda learn: torch.cuda.set_sync_debug_mode('error')),
              At('after_train', lambda learn: torch.cuda.set_sync_debug_mode('default'))]
    try: learn.fit(1, cbs=strict)
    finally: torch.cuda.set_sync_debug_mode('default')
    assert all(numbers.is_cuda and hist.is_cuda for rows in stats.rows.values() for _, numbers, hist in rows)
    assert not stats.means['0'].is_cuda
    assert learn.summary(torch.randn(2, 1, 8, 8)).macs == model_summary(net(), torch.randn(2, 1, 8, 8)).macs
