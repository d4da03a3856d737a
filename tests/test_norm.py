"Norm layers and LSUV against PyTorch, in the shapes, modes and states that no single cell of chapter 07a shows."
import copy
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from minidl.hooks import Hook
from minidl.init import init_cnn
from minidl.learner import Learner, Recorder, ToDevice
from minidl.norm import BatchNorm, LayerNorm, RunningBatchNorm, lsuv_init
from minidl.training import get_dls, no_decay_groups

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
SHAPES = {nn.BatchNorm1d: [(7, 4), (7, 4, 5)], nn.BatchNorm2d: [(7, 4, 5, 6), (1, 4, 3, 3)],
          nn.BatchNorm3d: [(3, 4, 2, 5, 6)]}
CASES = [(twin, shape) for twin, shapes in SHAPES.items() for shape in shapes]
BOTH = [BatchNorm, RunningBatchNorm]


def draw(*shape, seed=0, dtype=torch.float32, scale=3., shift=5.):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed),
                        dtype=torch.float64)*scale + shift).to(dtype)


def pair(twin, nf=4, dtype=torch.float32, **kwargs):
    "Ours and PyTorch's batch norm with the same, uncommon weights."
    torch.manual_seed(0)
    theirs = twin(nf, **kwargs).to(dtype)
    for p in theirs.parameters(): nn.init.normal_(p)
    ours = BatchNorm(nf, mom=kwargs.get('momentum', 0.1), eps=kwargs.get('eps', 1e-5)).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


# ---- batch norm

@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('twin, shape', CASES)
def test_batch_norm_equals_torchs_in_outputs_gradients_and_running_statistics(twin, shape, dtype):
    ours, theirs = pair(twin, dtype=dtype)
    for seed in range(30):
        bs = 1 + seed % 5 if len(shape) > 2 else 2 + seed % 5
        a = draw(bs, *shape[1:], seed=seed, dtype=dtype, scale=1 + seed, shift=seed - 10).requires_grad_()
        b = a.detach().clone().requires_grad_()
        out, out2 = ours(a), theirs(b)
        g = draw(*out.shape, seed=seed + 100, dtype=dtype)
        out.backward(g)
        out2.backward(g)
        tol = dict(rtol=1e-4, atol=1e-4) if dtype == torch.float32 else dict(rtol=1e-9, atol=1e-9)
        assert_close(out, out2, **tol)
        assert_close(a.grad, b.grad, **tol)
    for p, q in zip(ours.parameters(), theirs.parameters()): assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-2)
    for name, t in theirs.state_dict().items(): assert_close(ours.state_dict()[name], t)
    x = draw(*shape, seed=1000, dtype=dtype)
    assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)
    assert int(ours.num_batches_tracked) == 30   # evaluation counts nothing


@pytest.mark.parametrize('mom', [0., 0.01, 0.5, 1.])
@pytest.mark.parametrize('eps', [1e-3, 0.5])
def test_batch_norm_means_momentum_and_eps_as_torch_does(mom, eps):
    ours, theirs = pair(nn.BatchNorm2d, momentum=mom, eps=eps)
    for seed in range(5):
        assert_close(ours(draw(3, 4, 5, 5, seed=seed)), theirs(draw(3, 4, 5, 5, seed=seed)), rtol=1e-4, atol=1e-4)
    for name, t in theirs.state_dict().items(): assert_close(ours.state_dict()[name], t)


def test_batch_norms_state_goes_both_ways_and_strictly():
    ours, theirs = pair(nn.BatchNorm2d)
    for seed in range(3): ours(draw(3, 4, 5, 5, seed=seed))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours2 = BatchNorm(4)
    ours2.load_state_dict(theirs.state_dict(), strict=True)
    x = draw(2, 4, 5, 5)
    assert torch.equal(ours2.eval()(x), ours.eval()(x))
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]


def test_batch_norm_evaluates_a_single_sample_and_an_empty_batch_but_trains_on_neither():
    bn = BatchNorm(4)
    for x in torch.randn(1, 4), torch.randn(1, 4, 1, 1), torch.randn(0, 4), torch.randn(0, 4, 3, 3):
        with pytest.raises(ValueError, match='more than one value per channel'): bn.train()(x)
        assert bn.eval()(x).shape == x.shape
    assert int(bn.num_batches_tracked) == 0 and bn.running_mean.abs().max() == 0
    assert bn.train()(torch.randn(1, 4, 3, 3)).shape == (1, 4, 3, 3)


@pytest.mark.parametrize('kind', BOTH)
def test_a_wrong_number_of_channels_gets_a_sentence_in_both_modes(kind):
    layer = kind(4)
    for x in torch.randn(8, 5), torch.randn(8, 5, 3, 3), torch.randn(4), torch.tensor(1.):
        for mode in True, False:
            with pytest.raises(ValueError, match=r'\(4\) expects an input of shape \(bs, 4, ...\)'):
                layer.train(mode)(x)
    with pytest.raises(TypeError, match='floating-point'): layer(torch.ones(8, 4, dtype=torch.long))


@pytest.mark.parametrize('kind', BOTH)
def test_a_nan_spoils_its_own_channel_only_and_is_not_hidden(kind):
    x = draw(6, 4, 3, 3)
    x[0, 2, 0, 0] = math.nan
    out = kind(4)(x)
    assert out[:, 2].isnan().all() and not out[:, [0, 1, 3]].isnan().any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('kind', BOTH)
def test_half_precision_input_gets_statistics_in_float32(kind, dtype):
    x = draw(64, 4, 16, 16, scale=30., shift=200.).to(dtype)   # its squares sum up to far more than 65504
    layer, ref = kind(4), kind(4)
    out, exact = layer(x), ref(x.float())
    assert out.dtype == dtype and layer.running_mean.dtype == layer.running_var.dtype == torch.float32
    assert_close(layer.running_mean, ref.running_mean)
    assert_close(layer.running_var, ref.running_var)
    assert_close(out.float(), exact, rtol=1e-2, atol=1e-2)
    assert_close(layer.eval()(x).float(), ref.eval()(x.float()), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('kind', BOTH)
def test_a_model_wholly_in_half_precision_trains_and_evaluates(kind, dtype):
    layer = kind(4).to(dtype)
    for seed in range(60):
        x = draw(4, 4, 32, 32, seed=seed).to(dtype)
        out = layer(x)
        out.float().pow(2).mean().backward()
    assert out.dtype == dtype and out.isfinite().all() and layer.weight.grad.isfinite().all()
    assert_close(layer.running_mean.float(), torch.full((4,), 5.), rtol=0.05, atol=0.1)
    assert_close(layer.running_var.float(), torch.full((4,), 9.), rtol=0.1, atol=0.3)
    assert layer.eval()(x).isfinite().all()


def test_statistics_stored_in_bfloat16_are_still_computed_in_float32():
    low, high = RunningBatchNorm(4).bfloat16(), RunningBatchNorm(4)
    low(draw(8, 4, 5, 5).bfloat16())
    high.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in low.state_dict().items()})
    x = draw(3, 4, 5, 5, seed=1).bfloat16()
    low(x), high(x.float())
    for name in 'running_mean', 'running_var', 'count':
        assert torch.equal(getattr(low, name), getattr(high, name).bfloat16()), name


def test_batch_norm_in_bfloat16_is_as_near_to_torchs_as_the_format_allows():
    ours, theirs = pair(nn.BatchNorm2d)
    x = draw(8, 4, 6, 6).bfloat16()
    assert_close(ours(x).float(), theirs(x).float(), rtol=1e-2, atol=2e-2)


def test_double_input_to_a_float_layer_stays_double():
    for layer in BatchNorm(4), RunningBatchNorm(4), LayerNorm(4):
        assert layer(draw(6, 4, dtype=torch.float64)).dtype == torch.float64


def test_batch_norms_gradient_is_right_by_finite_differences():
    torch.manual_seed(0)
    bn = BatchNorm(3).double()
    assert torch.autograd.gradcheck(lambda x: bn(x), torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True))
    ln = LayerNorm((3, 2)).double()
    assert torch.autograd.gradcheck(lambda x: ln(x), torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize('kind', BOTH)
def test_non_contiguous_and_channels_last_input_is_as_good(kind):
    x = draw(6, 4, 5, 5)
    want = kind(4)(x)
    assert_close(kind(4)(x.to(memory_format=torch.channels_last)), want)
    assert_close(kind(4)(x.transpose(2, 3).contiguous().transpose(2, 3)), want)


@pytest.mark.parametrize('kind', [*BOTH, lambda nf: LayerNorm((nf, 5, 5))])
def test_a_forward_pass_never_waits_for_the_device(kind):
    layer = kind(4).to('meta')   # nothing on this device has a value, so asking for one is an error
    for mode in True, False:
        for bs in 2, 7: assert layer.train(mode)(torch.empty(bs, 4, 5, 5, device='meta')).shape == (bs, 4, 5, 5)


def test_weights_and_biases_of_norms_are_free_of_weight_decay_by_their_shape():
    for layer in BatchNorm(4), RunningBatchNorm(4), LayerNorm(4):
        assert [len(g['params']) for g in no_decay_groups(layer.parameters(), 0.1)] == [0, 2]


# ---- layer norm

@pytest.mark.parametrize('shape', [4, (4,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize('affine', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_layer_norm_equals_torchs_in_outputs_gradients_and_state(shape, affine, dtype):
    ours, theirs = LayerNorm(shape, affine=affine).to(dtype), nn.LayerNorm(shape, elementwise_affine=affine).to(dtype)
    for p in theirs.parameters(): nn.init.normal_(p)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    a = draw(5, 2, 3, 4, dtype=dtype).requires_grad_()
    b = a.detach().clone().requires_grad_()
    g = draw(5, 2, 3, 4, seed=1, dtype=dtype)
    ours(a).backward(g)
    theirs(b).backward(g)
    assert_close(ours(a), theirs(b), rtol=1e-4, atol=1e-5)
    assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    for p, q in zip(ours.parameters(), theirs.parameters()): assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4)
    theirs.load_state_dict(ours.state_dict(), strict=True)


def test_layer_norm_names_the_shapes_that_do_not_fit():
    for x in torch.randn(5, 3), torch.randn(5, 4, 3), torch.randn(()):
        with pytest.raises(ValueError, match=r'last dimensions are \(4,\)'): LayerNorm(4)(x)
    with pytest.raises(ValueError, match=r'\(3, 4\)'): LayerNorm((3, 4))(torch.randn(4))


def test_layer_norm_takes_half_precision_with_statistics_in_float32():
    x = draw(5, 4096, scale=30., shift=200.).half()
    assert_close(LayerNorm(4096)(x).float(), nn.LayerNorm(4096)(x.float()), rtol=1e-2, atol=1e-2)


# ---- running batch norm

def by_sums(batches, mom):
    "The lecture's way: sums, sums of squares and counts, forgotten sample by sample, here in float64."
    sums = sqrs = count = 0.
    for x in batches:
        dims = (0, *range(2, x.ndim))
        keep, pixels = (1 - mom)**(len(x)/2), x[0, 0].numel()
        sums = keep*sums + x.double().sum(dims)/pixels
        sqrs = keep*sqrs + x.double().square().sum(dims)/pixels
        count = keep*count + len(x)
    return sums/count, sqrs/count - (sums/count)**2


@pytest.mark.parametrize('sizes', [[2]*30, [1]*20, [64, 2, 1, 7, 3, 64, 2, 2], [2]])
@pytest.mark.parametrize('shape', [(4,), (4, 5), (4, 5, 6), (4, 2, 3, 2)])
def test_running_statistics_are_those_of_smoothed_sums_and_counts_for_any_batch_sizes(sizes, shape):
    rbn = RunningBatchNorm(4, mom=0.2)
    batches = [draw(bs, *shape, seed=i) for i, bs in enumerate(sizes)]
    for x in batches: out = rbn(x)
    mean, var = by_sums(batches, 0.2)
    assert_close(rbn.running_mean.double(), mean, rtol=1e-4, atol=1e-4)
    assert_close(rbn.running_var.double(), var, rtol=1e-3, atol=1e-3)
    if sum(sizes) >= 20:
        view = [1, 4] + [1]*(len(shape) - 1)
        want = (x - mean.view(view))/(var.view(view) + 1e-5).sqrt()
        assert_close(out, want.float(), rtol=1e-3, atol=1e-3)


def test_without_forgetting_the_statistics_are_those_of_all_samples_together():
    rbn = RunningBatchNorm(4, mom=0.)
    batches = [draw(bs, 4, 3, 3, seed=bs) for bs in (2, 9, 1, 30)]
    for x in batches: rbn(x)
    x = torch.cat(batches)
    assert_close(rbn.running_mean, x.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert_close(rbn.running_var, x.var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-4)


def test_with_all_forgetting_it_is_batch_norm_gradients_included():
    a, b = draw(30, 4, 3, 3).requires_grad_(), draw(30, 4, 3, 3).requires_grad_()
    rbn, bn = RunningBatchNorm(4, mom=1.), BatchNorm(4)
    for layer, x in (rbn, a), (bn, b):
        layer(draw(30, 4, 3, 3, seed=9))
        layer(x).pow(3).sum().backward()
    assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_that_of_the_mixture_with_the_old_statistics_constant():
    torch.manual_seed(0)
    rbn = RunningBatchNorm(3).double()
    for _ in range(20): rbn(torch.randn(2, 3, 2, 2, dtype=torch.float64))
    memory = {k: b.clone() for k, b in rbn.named_buffers()}
    def f(x):
        rbn.load_state_dict(memory, strict=False)   # each call from the same memory
        return rbn(x)
    assert torch.autograd.gradcheck(f, torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True))


def test_buffers_carry_no_graph_so_copies_and_many_steps_work():
    rbn = RunningBatchNorm(4)
    for seed in range(3):
        # a second backward through the first graph would fail
        rbn(draw(2, 4, 3, 3, seed=seed).requires_grad_()).sum().backward()
    out = rbn(draw(2, 4, 3, 3).requires_grad_())
    other = copy.deepcopy(rbn)   # in the middle of a step
    out.sum().backward()
    assert all(not b.requires_grad and b.grad_fn is None for b in rbn.buffers())
    rbn(draw(2, 4, 3, 3))
    assert not torch.equal(rbn.running_mean, other.running_mean)
    fresh = RunningBatchNorm(4)
    fresh.load_state_dict(rbn.state_dict(), strict=True)
    x = draw(2, 4, 3, 3, seed=5)
    assert torch.equal(fresh(x), rbn(x)) and torch.equal(fresh.eval()(x), rbn.eval()(x))


def test_a_layer_used_twice_in_a_forward_can_go_backward():
    for layer in RunningBatchNorm(4), BatchNorm(4): layer(layer(draw(2, 4, 3, 3).requires_grad_())).sum().backward()


def test_evaluation_gives_what_training_gave_and_moves_nothing():
    rbn = RunningBatchNorm(4)
    for seed in range(5): out = rbn(x := draw(2, 4, 3, 3, seed=seed))
    before = {k: v.clone() for k, v in rbn.state_dict().items()}
    assert torch.equal(rbn.eval()(x), out)
    for k, v in rbn.state_dict().items(): assert torch.equal(v, before[k])


def test_an_untrained_running_batch_norm_in_evaluation_is_the_identity_like_torchs():
    x = draw(3, 4, 2, 2)
    assert_close(RunningBatchNorm(4).eval()(x), nn.BatchNorm2d(4).eval()(x))


def test_a_large_mean_does_not_eat_the_variance():
    rbn = RunningBatchNorm(4)
    for seed in range(40): out = rbn(draw(16, 4, 8, 8, seed=seed, scale=1., shift=3e4))
    assert_close(rbn.running_var, torch.ones(4), rtol=0.1, atol=0.1)
    assert out.abs().max() < 10


def test_the_variance_has_a_floor_only_while_few_samples_were_seen():
    rbn, x = RunningBatchNorm(1), torch.tensor([[1.], [1.0001]])
    for _ in range(9): rbn(x)
    assert_close(rbn.eval()(torch.tensor([[2.]])).item(), 10., rtol=1e-2, atol=0)   # 18 samples
    rbn.train()(x)
    assert rbn.eval()(torch.tensor([[2.]])).item() > 300                            # 20 samples


def test_running_batch_norm_takes_one_sample_and_refuses_an_empty_batch_and_a_strange_mom():
    rbn = RunningBatchNorm(4)
    for seed in range(30): out = rbn(draw(1, 4, seed=seed))
    assert out.isfinite().all() and 0.2 < out.std() < 5
    before = rbn.running_mean.clone()
    with pytest.raises(ValueError, match='empty batch'): rbn(torch.empty(0, 4))
    assert torch.equal(before, rbn.running_mean)
    for mom in -0.1, 1.5:
        with pytest.raises(ValueError, match='between 0 and 1'): RunningBatchNorm(4, mom=mom)


def small_digits(norm, bs, seed, n=400):
    "Loss over the last batches of four epochs on a toy task in a net with two numbers per channel for batches of two."
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 10, generator=g)
    y = (x[:, :3].abs().sum(1) > 2.2).long()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(10, 32, bias=False), norm(32), nn.ReLU(), nn.Linear(32, 32, bias=False), norm(32),
                          nn.ReLU(),
                          nn.Linear(32, 2))
    learn = Learner(model, get_dls(TensorDataset(x, y), TensorDataset(x, y), bs=bs, seed=seed), F.cross_entropy,
                    torch.optim.SGD, lr=0.05,
                    default_cbs=False, cbs=[ToDevice('cpu'), Recorder()])
    learn.fit(4)
    return learn.validate()['loss']


@pytest.mark.parametrize('seed', range(3))
def test_batches_of_two_are_learned_with_running_batch_norm_and_not_with_batch_norm(seed):
    assert small_digits(RunningBatchNorm, 2, seed) < small_digits(BatchNorm, 2, seed) - 0.1


# ---- LSUV

def outputs(model, xb, kinds=(nn.Linear, nn.modules.conv._ConvNd)):
    "Mean and std of the first output of each layer that is called, in order."
    seen = {}
    def look(m, inp, outp): seen.setdefault(m, (outp.float().mean().item(), outp.float().std(correction=0).item()))
    handles = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad(): model(*xb) if isinstance(xb, tuple) else model(**xb) if isinstance(xb, dict) else model(xb)
    for h in handles: h.remove()
    return seen


def check(model, xb, names=None, **kwargs):
    stats = lsuv_init(model, xb, **kwargs)
    by_name = dict(model.named_modules())
    seen = outputs(model, xb)
    for r in stats:
        mean, std = seen[by_name[r['name']]]
        assert abs(std - 1) < 2e-3, r
        if by_name[r['name']].bias is not None: assert abs(mean) < 2e-3, r
        assert abs(r['std'] - std) < 1e-4 and abs(r['mean'] - mean) < 1e-4   # the table tells the truth
    if names is not None: assert [r['name'] for r in stats] == names
    return stats


class Res(nn.Module):
    "A residual block whose convolution is used twice, with an unused layer, in another order than it is defined."
    def __init__(self, nf):
        super().__init__()
        self.last = nn.Conv2d(nf, nf, 1)
        self.unused = nn.Linear(2, 2)
        self.shared = nn.Conv2d(nf, nf, 3, padding=1)
        self.bn = nn.BatchNorm2d(nf)
        self.skip = nn.Conv2d(nf, nf, 1, bias=False)
    def forward(self, x): return self.skip(x) + self.last(self.bn(self.shared(F.relu(self.shared(x)))))


def resnet():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(inplace=True), nn.Sequential(Res(8), nn.Sequential(Res(8))),
                         nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(8, 4))


ANY = {
    'mlp': (lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 3)),
            (64, 6)),
    'conv1d': (lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=4), nn.Hardswish()),
               (16, 3, 20)),
    'conv3d': (lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.Mish(), nn.Conv3d(4, 4, 2, bias=False)), (8, 2, 6, 6, 6)),
    'transposed': (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(),
                                         nn.ConvTranspose2d(8, 3, 2, stride=2)), (8, 3, 12, 12)),
    'norms': (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), BatchNorm(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8),
                                    RunningBatchNorm(8),
                                    nn.Conv2d(8, 4, 1)), (8, 3, 12, 12)),
    'deep': (lambda: nn.Sequential(*[l for _ in range(40) for l in (nn.Linear(16, 16), nn.ReLU())]), (128, 16)),
    'tokens': (lambda: nn.Sequential(nn.Linear(6, 12), LayerNorm(12), nn.Linear(12, 5)), (4, 7, 6)),
}


@pytest.mark.parametrize('name', ANY)
def test_lsuv_gives_every_kind_of_layer_std_1_and_mean_0(name):
    make, shape = ANY[name]
    torch.manual_seed(0)
    model = make()
    stats = check(model, draw(*shape, shift=0.5))
    assert len(stats) == sum(isinstance(m, (nn.Linear, nn.modules.conv._ConvNd)) for m in model.modules())


def test_lsuv_follows_the_forward_through_nested_and_shared_layers_and_leaves_unused_ones():
    torch.manual_seed(0)
    model = resnet()
    unused = [p.clone() for n, p in model.named_parameters() if 'unused' in n]
    block = lambda b: [f'{b}.{n}' for n in ('skip', 'shared', 'last')]
    check(model, draw(8, 3, 10, 10), ['0', *block('2.0'), *block('2.1.0'), '5'])
    for a, b in zip(unused, [p for n, p in model.named_parameters() if 'unused' in n]): assert torch.equal(a, b)


def snapshot(model):
    return ([(m.training, list(m._forward_hooks), list(m._forward_pre_hooks), list(m._buffers))
             for m in model.modules()],
            {n: b.clone() for n, b in model.named_buffers()}, torch.get_rng_state())


def test_lsuv_leaves_modes_buffers_hooks_gradients_and_the_random_state_as_found():
    torch.manual_seed(0)
    model = resnet()
    model.insert(2, nn.Dropout(0.5))
    model[3][0].bn.eval()
    calls, xb = [], draw(8, 3, 10, 10)
    model(xb).sum().backward()
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    ids = [id(p) for p in model.parameters()]
    with Hook(model[0], lambda *a: calls.append(1)):
        modes, buffers, rng = snapshot(model)
        lsuv_init(model, xb)
        modes2, buffers2, rng2 = snapshot(model)
        assert modes == modes2 and torch.equal(rng, rng2) and buffers.keys() == buffers2.keys()
        for n in buffers: assert torch.equal(buffers[n], buffers2[n]), n
    assert ids == [id(p) for p in model.parameters()] and all(p.requires_grad for p in model.parameters())
    for p, g in zip(model.parameters(), grads):
        assert (p.grad is None) == (g is None) and (g is None or torch.equal(p.grad, g))
    assert 0 < len(calls) <= 4   # one to look, one that corrects, one to see that it is good


def test_lsuv_makes_at_most_one_pass_per_step():
    class Stubborn(nn.Linear):
        # no scale of the weight changes this
        def forward(self, x): return F.linear(x, F.normalize(self.weight)*3, self.bias)
    model, calls = nn.Sequential(Stubborn(4, 4), nn.ReLU(), nn.Linear(4, 2)), []
    told = pytest.warns(UserWarning, match='0, 2 still off by more than 0.001 after 4 corrections')
    with Hook(model, lambda *a: calls.append(1)), told:
        lsuv_init(model, draw(32, 4), max_iter=4)
    assert len(calls) == 1 + 4 + 1


@pytest.mark.parametrize('ortho', [True, False])
@pytest.mark.parametrize('bias', [True, False])
def test_lsuv_needs_three_passes_since_later_layers_see_what_earlier_ones_became(bias, ortho):
    torch.manual_seed(0)
    layers = [l for _ in range(8) for l in (nn.Linear(16, 16, bias=bias), nn.Sigmoid(), nn.Dropout(0.2))]
    model, calls = nn.Sequential(*layers), []
    with Hook(model, lambda *a: calls.append(1)): stats = lsuv_init(model, draw(64, 16), ortho=ortho)
    assert len(calls) == 3   # one that looks, one that corrects, one that finds all good
    assert bias or max(abs(r['mean']) for r in stats) > 0.01   # without a bias the mean is what it is


def test_lsuv_measures_in_training_mode_also_if_the_model_is_in_evaluation():
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)).eval()
    model[1].running_var.fill_(100.)
    lsuv_init(model, draw(64, 16))
    assert not model[3].training
    for mean, std in outputs(model.train(), draw(64, 16)).values(): assert abs(std - 1) < 2e-3 and abs(mean) < 2e-3


def test_lsuv_draws_orthogonal_weights_and_only_scales_if_told_so():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8))
    old = model[0].weight.detach().clone()
    lsuv_init(model, draw(64, 16), ortho=False)
    ratio = model[0].weight/old
    assert_close(ratio, torch.full_like(ratio, ratio[0, 0].item()))
    lsuv_init(model, draw(64, 16))
    gram = model[0].weight @ model[0].weight.T
    assert_close(gram, torch.eye(8)*gram[0, 0], rtol=1e-4, atol=1e-4*gram[0, 0].item())


def test_lsuv_can_be_repeated_and_its_result_depends_on_the_seed_alone():
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        model = resnet()
        torch.manual_seed(4)
        lsuv_init(model, draw(8, 3, 10, 10))
        weights.append(model[0].weight.clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize('std', [0.5, 2.])
def test_lsuv_reaches_other_stds(std):
    model = ANY['mlp'][0]()
    lsuv_init(model, draw(64, 6), std=std)
    for mean, s in outputs(model, draw(64, 6)).values(): assert abs(s - std) < 2e-3*std and abs(mean) < 2e-3*std


@pytest.mark.parametrize('bad, why', [(torch.zeros(8, 3, 10, 10), 'output of 0 .Conv2d. has a std of 0'),
                                      (torch.full((8, 3, 10, 10), math.nan), 'output of 0 .Conv2d. is not finite'),
                                      (draw(8, 3, 10, 10)*math.inf, 'is not finite')])
def test_lsuv_says_which_layer_it_cannot_scale_and_changes_nothing(bad, why):
    model = resnet()
    before, (modes, _, rng) = copy.deepcopy(model.state_dict()), snapshot(model)
    with pytest.raises(ValueError, match=why): lsuv_init(model, bad)
    for k, v in model.state_dict().items(): assert torch.equal(v, before[k]), k
    assert snapshot(model)[0] == modes and torch.equal(torch.get_rng_state(), rng)


def test_lsuv_names_the_dead_layer_in_the_middle():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Hardtanh(5., 6.), nn.Threshold(1e9, 0.),
                          nn.Linear(4, 4))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match='output of 5 .Linear. has a std of 0'): lsuv_init(model, draw(16, 4))
    for k, v in model.state_dict().items(): assert torch.equal(v, before[k])


def test_lsuv_leaves_the_model_as_it_was_when_its_forward_fails():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.calls = nn.Linear(4, 4), 0
        def forward(self, x):
            self.calls += 1
            if self.calls == 3: raise RuntimeError('out of luck')
            return self.a(x)
    model = Fails().eval()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match='out of luck'): lsuv_init(model, draw(8, 4))
    for k, v in model.state_dict().items(): assert torch.equal(v, before[k])
    assert not model.training and not model.a._forward_hooks and model.calls == 0


def test_lsuv_leaves_frozen_tied_and_computed_weights_alone():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.hid, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20)
            self.head.weight = self.emb.weight
            self.frozen = nn.Linear(8, 8).requires_grad_(False)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        def forward(self, x): return self.head(self.normed(self.frozen(self.hid(self.emb(x)))))
    torch.manual_seed(0)
    model = Tied()
    before = copy.deepcopy(model.state_dict())
    stats = check(model, torch.arange(20).view(4, 5), ['hid'])
    for k, v in model.state_dict().items(): assert torch.equal(v, before[k]) != k.startswith('hid.'), k
    assert 'hid Linear' in repr(stats)


def test_lsuv_scales_a_weight_that_two_layers_share_once():
    torch.manual_seed(0)
    a, b = nn.Linear(8, 8), nn.Linear(8, 8)
    b.weight = a.weight
    check(nn.Sequential(a, nn.ReLU(), b), draw(32, 8), ['0'])


def test_lsuv_takes_a_learner_and_the_inputs_that_a_model_takes():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(5, 8)
        def forward(self, x, z): return self.a(x)*self.b(z)
    inputs = draw(16, 4), draw(16, 5)
    check(Two(), inputs, ['a', 'b'])
    check(Two(), dict(x=inputs[0], z=inputs[1]), ['a', 'b'])
    ds = TensorDataset(draw(32, 3, 10, 10), torch.arange(32) % 4)
    learn = Learner(resnet(), get_dls(ds, ds, bs=8), F.cross_entropy, lr=1e-3, default_cbs=False,
                    cbs=[ToDevice('cpu'), Recorder()])
    lsuv_init(learn, ds.tensors[0][:8])
    for _, std in outputs(learn.model, ds.tensors[0][:8]).values(): assert abs(std - 1) < 2e-3
    learn.fit(1)
    lsuv_init(learn.model, learn.dls.one_batch()[0])
    assert math.isfinite(learn.fit(1).recorder.losses[-1])


def test_lsuv_takes_a_model_that_is_one_layer_and_refuses_what_has_none_or_is_lazy():
    stats = lsuv_init(layer := nn.Linear(4, 4), draw(32, 4))
    assert stats[0]['name'] == 'Linear' and abs(layer(draw(32, 4)).std(correction=0) - 1) < 2e-3
    with pytest.raises(ValueError, match='no trainable linear or convolutional layer'):
        lsuv_init(nn.Sequential(nn.ReLU()), draw(2, 2))
    with pytest.raises(ValueError, match='lazy'): lsuv_init(nn.Sequential(nn.LazyLinear(3)), draw(2, 2))
    lonely = Res(3)
    lonely.forward = lambda x: x
    with pytest.raises(ValueError, match='reaches no'): lsuv_init(lonely, draw(2, 3, 4, 4))


@pytest.mark.parametrize('dtype, tol', [(torch.float64, 2e-3), (torch.bfloat16, 3e-2)])
def test_lsuv_works_in_other_precisions_without_a_warning(dtype, tol):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 8)).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        lsuv_init(model, draw(256, 16).to(dtype))
    for mean, std in outputs(model, draw(256, 16).to(dtype)).values(): assert abs(std - 1) < tol and abs(mean) < tol


def test_lsuv_saves_a_deep_net_that_kaiming_cannot():
    torch.manual_seed(0)
    make = lambda: nn.Sequential(*[l for _ in range(30) for l in (nn.Conv2d(16, 16, 3, padding=1), nn.Mish())])
    xb = torch.randn(64, 16, 2, 2)
    assert list(outputs(init_cnn(make()), xb).values())[-1][1] < 0.01
    model = make()
    stats = lsuv_init(model, xb)
    assert abs(list(outputs(model, xb).values())[-1][1] - 1) < 2e-3
    text = repr(stats)
    assert 'mean before' in text and len(text.splitlines()) == 31


# ---- on a GPU

@cuda
@pytest.mark.parametrize('kind', BOTH)
def test_norms_on_cuda_equal_those_on_the_cpu_and_do_not_wait(kind):
    cpu, gpu = kind(4), kind(4).cuda()
    for seed in range(5):
        x = draw(4, 4, 6, 6, seed=seed)
        want, x = cpu(x), x.cuda()
        torch.cuda.set_sync_debug_mode('error')
        try: out = gpu(x)
        finally: torch.cuda.set_sync_debug_mode('default')
        assert_close(out.cpu(), want, rtol=1e-4, atol=1e-4)
    with torch.autocast('cuda'): gpu(nn.Conv2d(4, 4, 1).cuda()(x)).sum().backward()


@cuda
def test_lsuv_moves_the_batch_to_the_model():
    model = resnet().cuda()
    lsuv_init(model, draw(8, 3, 10, 10))
    for _, std in outputs(model, draw(8, 3, 10, 10).cuda()).values(): assert abs(std - 1) < 5e-3
