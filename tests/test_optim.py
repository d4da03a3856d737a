"The optimizers against torch.optim, the papers, and the machinery of PyTorch around optimizers (chapter 09)."
import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn

from minidl import optim
from minidl.optim import (LAMB, SGD, Adam, AdamW, RMSProp, StatefulOptimizer, adam_ratio, average_grad,
                          average_sqr_grad, chunks, gather, hypers, lecture_adamw, sgd_step, stepper)

SMALL = 1000   # elements in a chunk and for a thread, in these tests; four threads count at most
SHAPES = [(90, 50), (1, 4*SMALL + 7), (20,), (), (4, 3, 5), (0, 3)]   # two are longer than a chunk, one in a single row
FACTORIES = {'SGD': lambda ps: SGD(ps, 0.01, momentum=0.9, weight_decay=0.1),
             'RMSProp': lambda ps: RMSProp(ps, momentum=0.5), 'Adam': Adam, 'AdamW': AdamW, 'LAMB': LAMB,
             'lecture': lambda ps: lecture_adamw(ps, lr=0.01)}
each = pytest.mark.parametrize('make', FACTORIES.values(), ids=FACTORIES)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(optim, 'CHUNK', SMALL)


def params(shapes=SHAPES, dtype=torch.float32, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, dtype=dtype, generator=gen)) for s in shapes]


def feed(ps, seed, late=None, until=0):
    "Give all of `ps` a gradient, except number `late` before step `until`."
    gen = torch.Generator().manual_seed(seed)
    for i, p in enumerate(ps):
        g = torch.randn(p.shape, dtype=p.dtype, generator=gen) * 10.**(i % 4 - 2)
        p.grad = None if i == late and seed < until else g


def train(opt, ps, seeds, **kwargs):
    for seed in seeds:
        feed(ps, seed, **kwargs)
        opt.step()


def assert_equal_walks(ours, theirs, dtype=torch.float32, **kwargs):
    ps, qs = params(dtype=dtype), params(dtype=dtype)
    train(ours(ps), ps, range(50), **kwargs)
    train(theirs(qs), qs, range(50), **kwargs)
    tol = 1e-5 if dtype in (torch.float32, torch.complex64) else 1e-12
    for p, q in zip(ps, qs): torch.testing.assert_close(p, q, rtol=tol, atol=tol)


TWINS = [(SGD, torch.optim.SGD, dict(lr=0.01, **kw)) for kw in
         ({}, dict(weight_decay=0.1), dict(momentum=0.9), dict(momentum=0.9, dampening=0.5),
          dict(momentum=0.9, weight_decay=0.1, nesterov=True))]
TWINS += [(RMSProp, torch.optim.RMSprop, dict(lr=0.01, **kw)) for kw in
          ({}, dict(weight_decay=0.1), dict(momentum=0.9, alpha=0.9, eps=1e-6))]
TWINS += [(a, b, dict(lr=0.01, **kw)) for a, b in ((Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW))
          for kw in ({}, dict(weight_decay=0.1), dict(betas=(0.8, 0.95), eps=1e-4, weight_decay=0.3))]
twins = pytest.mark.parametrize('ours, theirs, kwargs', TWINS,
                                ids=lambda x: x.__name__ if isinstance(x, type) else '-'.join(x))


@twins
def test_fifty_steps_equal_the_torch_twin(ours, theirs, kwargs):
    assert_equal_walks(lambda ps: ours(ps, **kwargs), lambda ps: theirs(ps, **kwargs), late=2, until=11)


@twins
def test_in_float64_the_torch_twin_is_equal_to_twelve_digits(ours, theirs, kwargs):
    assert_equal_walks(lambda ps: ours(ps, **kwargs), lambda ps: theirs(ps, **kwargs), dtype=torch.float64)


@twins
def test_complex_parameters_are_pairs_of_real_ones_as_in_torch(ours, theirs, kwargs):
    assert_equal_walks(lambda ps: ours(ps, **kwargs), lambda ps: theirs(ps, **kwargs), dtype=torch.complex64)


def test_sgd_is_bit_equal_to_torch():
    ps, qs = params(), params()
    train(SGD(ps, 0.01, momentum=0.9, weight_decay=0.1), ps, range(20))
    train(torch.optim.SGD(qs, 0.01, momentum=0.9, weight_decay=0.1), qs, range(20))
    assert all(torch.equal(p, q) for p, q in zip(ps, qs))


def test_adam_in_one_operation_equals_ratio_and_step():
    ps, qs = params(), params()
    kwargs = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-3)
    train(StatefulOptimizer(ps, [average_grad, average_sqr_grad, adam_ratio, sgd_step], **kwargs), ps, range(10))
    train(Adam(qs, **kwargs), qs, range(10))
    for p, q in zip(ps, qs): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('start', ['random', 'zeros'])
def test_lamb_equals_the_formulas_of_the_paper_for_each_tensor(start):
    lr, b1, b2, eps, wd = 0.01, 0.9, 0.999, 1e-6, 0.1
    shapes = [(90, 50), (30,)]
    ps = params(shapes, torch.float64)
    if start == 'zeros': ps = [nn.Parameter(torch.zeros_like(p)) for p in ps]
    want = [p.detach().clone() for p in ps]
    ms, vs = [torch.zeros_like(p) for p in want], [torch.zeros_like(p) for p in want]
    opt = LAMB(ps, lr, (b1, b2), eps, wd)
    for t in range(1, 51):
        feed(ps, t)
        opt.step()
        for i, p in enumerate(ps):
            ms[i] = b1*ms[i] + (1-b1)*p.grad
            vs[i] = b2*vs[i] + (1-b2)*p.grad**2
            u = (ms[i]/(1-b1**t)) / ((vs[i]/(1-b2**t))**0.5 + eps) + wd*want[i]
            x_len, u_len = (want[i]**2).sum()**0.5, (u**2).sum()**0.5
            want[i] = want[i] - lr*u*(x_len/u_len if x_len > 0 and u_len > 0 else 1.)
    for p, q in zip(ps, want): torch.testing.assert_close(p.detach(), q, rtol=1e-10, atol=1e-12)


@each
def test_the_result_does_not_depend_on_the_chunk_size(make, monkeypatch):
    results = []
    for size in 1, 64, 1000, 10**9:
        monkeypatch.setattr(optim, 'CHUNK', size)
        ps = params([(30, 50), (20,), (), (4, 3, 5)])
        train(make(ps), ps, range(5))
        results.append(ps)
    for ps in results[1:]:
        for p, q in zip(ps, results[0]): torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('n', [1, 7, 64, 10**6])
def test_chunks_cover_every_element_once_in_order_and_are_views(n):
    a = [torch.rand(s) for s in [(9, 4), (3,), (), (0, 2), (50,), (1, 30), (2, 2, 2)]]
    b = [torch.zeros_like(t) for t in a]
    seen = []
    for xs, ys in chunks([a, b], n):
        assert sum(x.numel() for x in xs) <= max(n, 30) or len(xs) == 1
        seen += [x.flatten() for x in xs]
        torch._foreach_add_(ys, xs)
    assert torch.equal(torch.cat(seen), torch.cat([t.flatten() for t in a]))
    assert all(torch.equal(x, y) for x, y in zip(a, b))
    assert [t.shape for xs, in chunks([a], n, whole=True) for t in xs] == [t.shape for t in a]


def test_other_memory_layouts_and_strided_gradients_give_the_same_result():
    ps = params([(16, 3, 10, 10)])
    assert ps[0].numel() > 4*SMALL
    qs = [nn.Parameter(p.detach().clone().to(memory_format=torch.channels_last)) for p in ps]
    a, b = AdamW(ps, 0.1), AdamW(qs, 0.1)
    for seed in range(3):
        feed(ps, seed)
        qs[0].grad = ps[0].grad.transpose(2, 3).contiguous().transpose(2, 3)
        a.step(); b.step()
    torch.testing.assert_close(ps[0], qs[0].contiguous(), rtol=1e-6, atol=1e-7)


def test_gradients_are_left_as_they_are():
    for make in FACTORIES.values():
        ps = params()
        opt = make(ps)
        for seed in 1, 2:
            feed(ps, seed)
            before = [p.grad.clone() for p in ps]
            opt.step()
            assert all(torch.equal(p.grad, g) for p, g in zip(ps, before))


@each
def test_state_goes_to_a_file_and_back_and_training_goes_on_the_same(make):
    ps, qs = params(), params()
    a, b = make(ps), make(qs)
    train(a, ps, range(5))
    file = io.BytesIO()
    torch.save(a.state_dict(), file)
    file.seek(0)
    b.load_state_dict(torch.load(file, weights_only=True))
    for p, q in zip(ps, qs): q.data.copy_(p.data)
    train(a, ps, range(5, 10))
    train(b, qs, range(5, 10))
    assert all(torch.equal(p, q) for p, q in zip(ps, qs))


@each
def test_copies_and_pickles_keep_their_steps(make):
    ps = params([(3, 4), (4,)])
    opt = make(ps)
    train(opt, ps, range(3))
    for twin in copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)):
        qs = twin.param_groups[0]['params']
        train(twin, qs, [7])
        assert len(twin.steps) == len(opt.steps) and not torch.equal(qs[0], ps[0])


@pytest.mark.parametrize('ours, theirs, kwargs', [(SGD, torch.optim.SGD, dict(lr=0.1, momentum=0.9, dampening=0.5)),
                                                  (Adam, torch.optim.Adam, {}), (AdamW, torch.optim.AdamW, {}),
                                                  (RMSProp, torch.optim.RMSprop, {}),
                                                  (RMSProp, torch.optim.RMSprop, dict(momentum=0.9))])
@pytest.mark.parametrize('back', [False, True], ids=['from torch', 'to torch'])
def test_states_are_exchanged_with_torch(ours, theirs, kwargs, back):
    first, second = (ours, theirs) if back else (theirs, ours)
    ps, qs = params(), params()
    a, b = first(ps, **kwargs), second(qs, lr=99.)
    train(a, ps, range(5))
    b.load_state_dict(copy.deepcopy(a.state_dict()))   # torch does not copy tensors on loading
    for p, q in zip(ps, qs): q.data.copy_(p.data)
    train(a, ps, range(5, 10))
    train(b, qs, range(5, 10))
    for p, q in zip(ps, qs): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('ours, theirs', [(Adam, torch.optim.AdamW), (AdamW, torch.optim.Adam)])
def test_the_memory_of_the_other_weight_decay_is_refused(ours, theirs):
    ps = params()
    opt = theirs(ps)
    train(opt, ps, range(2))
    if 'decoupled_weight_decay' not in opt.param_groups[0]: pytest.skip('this torch does not note which one it is')
    with pytest.raises(ValueError, match='decoupled_weight_decay'): ours(params()).load_state_dict(opt.state_dict())


@pytest.mark.parametrize('make', [SGD, Adam, AdamW, RMSProp, LAMB])
def test_a_rate_may_be_a_tensor(make):
    ps, qs = params(), params()
    train(make(ps, lr=0.1), ps, range(3))
    train(make(qs, lr=torch.tensor(0.1)), qs, range(3))
    for p, q in zip(ps, qs): torch.testing.assert_close(p, q)


def test_a_bfloat16_copy_of_the_parameters_keeps_its_step_count_exactly():
    ps = params([(3,)])
    opt = Adam(ps)
    opt.state[ps[0]]['step'] = 1000   # bfloat16 has no 1001
    train(opt, ps, [1])
    qs = [nn.Parameter(p.detach().bfloat16()) for p in ps]
    other = Adam(qs)
    other.load_state_dict(opt.state_dict())
    assert other.state[qs[0]]['step'] == 1001 and other.state[qs[0]]['exp_avg'].dtype == torch.bfloat16


@pytest.mark.parametrize('make', [lambda ps: SGD(ps, 0.1), lambda ps: SGD(ps, 0.1, momentum=0.9), AdamW, LAMB])
def test_one_cycle_sets_rate_and_momentum(make):
    ps = params([(3,)])
    opt = make(ps)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=1., total_steps=20)
    lrs, moms = [], []
    for seed in range(19):
        h = hypers(opt.param_groups[0])
        lrs.append(h['lr']); moms.append(h['mom'])
        train(opt, ps, [seed])
        sched.step()
    assert max(lrs) == pytest.approx(1., abs=0.01)
    assert min(moms) == pytest.approx(0.85, abs=1e-3) and max(moms) == pytest.approx(0.95)


def test_momentum_switched_on_later_equals_torch():
    ps, qs = params(), params()
    a, b = SGD(ps, 0.1), torch.optim.SGD(qs, 0.1)
    train(a, ps, range(3)); train(b, qs, range(3))
    assert 'momentum_buffer' not in a.state[ps[0]]
    for opt in a, b: opt.param_groups[0]['momentum'] = 0.9
    train(a, ps, range(3, 9)); train(b, qs, range(3, 9))
    assert all(torch.equal(p, q) for p, q in zip(ps, qs))


@each
def test_the_gradient_scaler_skips_steps_with_infinite_gradients(make):
    ps = params([(3, 4)])
    before = ps[0].detach().clone()
    opt, scaler = make(ps), torch.amp.GradScaler('cpu', init_scale=4.)
    scaler.scale((ps[0] * math.inf).sum()).backward()
    scaler.step(opt); scaler.update()
    assert torch.equal(ps[0], before) and not opt.state
    opt.zero_grad()
    scaler.scale((ps[0] * 3).sum()).backward()
    scaler.step(opt); scaler.update()
    reference = [nn.Parameter(before.clone())]
    reference[0].grad = torch.full_like(before, 3.)
    make(reference).step()
    torch.testing.assert_close(ps[0], reference[0])


@pytest.mark.skipif(not torch.distributed.is_available(), reason='torch without distributed')
# torch.distributed.optim itself uses torch.jit.script and torch.jit.interface when it is imported (torch 2.13)
@pytest.mark.filterwarnings('ignore:.torch.jit.(script|interface). is deprecated:DeprecationWarning')
def test_zero_redundancy_optimizer_takes_ours(tmp_path):
    from torch.distributed.optim import ZeroRedundancyOptimizer
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        ps, qs = params(), params()
        a, b = ZeroRedundancyOptimizer(ps, AdamW, lr=0.1), AdamW(qs, lr=0.1)
        train(a, ps, range(3)); train(b, qs, range(3))
        assert all(torch.equal(p, q) for p, q in zip(ps, qs))
    finally: torch.distributed.destroy_process_group()


def test_hooks_before_and_after_the_step_run():
    ps = params([(3,)])
    opt, calls = AdamW(ps), []
    opt.register_step_pre_hook(lambda *a: calls.append('before'))
    opt.register_step_post_hook(lambda *a: calls.append('after'))
    train(opt, ps, [0])
    assert calls == ['before', 'after']


@each
def test_parameters_without_a_gradient_are_skipped_and_get_no_state(make):
    ps = params([(3,), (4,)])
    before = ps[1].detach().clone()
    opt = make(ps)
    feed(ps, 0); ps[1].grad = None
    opt.step()
    assert torch.equal(ps[1], before) and ps[1] not in opt.state
    opt.zero_grad()
    opt.step()   # nobody has one
    assert opt.state[ps[0]]['step'] == 1


def test_groups_have_their_own_rate_decay_and_betas():
    ps, qs = params([(5,), (6,)]), params([(5,), (6,)])
    for make, xs in (AdamW, ps), (torch.optim.AdamW, qs):
        groups = [dict(params=xs[:1], lr=0.1, weight_decay=0.), dict(params=xs[1:], betas=(0.5, 0.9))]
        opt = make(groups, lr=0.01, weight_decay=0.2)
        train(opt, xs, range(10))
    for p, q in zip(ps, qs): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_a_group_added_later_counts_its_own_steps():
    ps, qs = params([(5,), (6,)]), params([(5,), (6,)])
    for make, xs in (Adam, ps), (torch.optim.Adam, qs):
        opt = make(xs[:1], lr=0.1)
        train(opt, xs, range(5))
        opt.add_param_group(dict(params=xs[1:]))
        train(opt, xs, range(5, 10))
        assert [int(opt.state[x]['step']) for x in xs] == [10, 5]
    for p, q in zip(ps, qs): torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_lists_are_sorted_by_device_dtype_and_step():
    ps = [*params([(3,), (4,)]), *params([(5,)], torch.float64)]
    opt = Adam(ps)
    feed(ps, 0); ps[1].grad = None
    opt.step()
    feed(ps, 1)
    lists = gather(ps, opt.state, ['exp_avg'])
    assert {(dtype, n): [p.numel() for p in ls[0]] for (_, dtype, n), ls in lists.items()} == {
        (torch.float32, 2): [3], (torch.float32, 1): [4], (torch.float64, 2): [5]}


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned():
    ps = params([(3,)])
    opt = AdamW(ps)
    def closure():
        opt.zero_grad()
        loss = ps[0].square().sum()
        loss.backward()
        return loss
    want = ps[0].square().sum().item()
    assert opt.step(closure).item() == pytest.approx(want) and ps[0].grad is not None
    assert opt.step() is None


@each
def test_sparse_gradients_are_refused_with_a_way_out(make):
    emb = nn.Embedding(10, 3, sparse=True)
    emb(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match=r'shape \(10, 3\) has a sparse gradient.*SparseAdam'):
        make(emb.parameters()).step()


@pytest.mark.parametrize('kwargs, words', [
    (dict(lr=-1.), 'lr must be at least 0, got -1.0'), (dict(lr=math.nan), 'lr must be at least 0'),
    (dict(eps=-1e-8), 'eps must be at least 0'), (dict(weight_decay=-0.1), 'weight_decay must be at least 0'),
    (dict(betas=(0.9, 1.)), r'betas must lie in \[0, 1\)')])
def test_values_out_of_range_are_refused(kwargs, words):
    with pytest.raises(ValueError, match='AdamW: ' + words): AdamW(params(), **kwargs)
    with pytest.raises(ValueError, match='AdamW: ' + words): AdamW([dict(params=params(), **kwargs)])


@pytest.mark.parametrize('group, words', [
    (dict(wd=0.), 'write weight_decay'), (dict(mom=0.), 'write momentum'),
    (dict(maximize=True), 'maximize=True is not offered'), (dict(amsgrad=True), 'amsgrad=True is not offered')])
def test_options_that_would_be_ignored_are_refused(group, words):
    with pytest.raises(ValueError, match=words): AdamW([dict(params=params(), **group)])
    opt = AdamW(params([(3,)]))
    with pytest.raises(ValueError, match=words): opt.add_param_group(dict(params=params(), **group))
    assert len(opt.param_groups) == 1


def test_the_state_of_an_amsgrad_run_is_refused():
    ps = params([(3,)])
    opt = torch.optim.AdamW(ps, amsgrad=True)
    train(opt, ps, [0])
    ours = AdamW(params([(3,)]), lr=0.5)
    with pytest.raises(ValueError, match='amsgrad=True is not offered'): ours.load_state_dict(opt.state_dict())
    assert ours.param_groups[0]['lr'] == 0.5 and not ours.state


def test_nesterov_needs_momentum_and_a_model_is_not_its_parameters():
    with pytest.raises(ValueError, match='nesterov needs momentum above 0 and no dampening'):
        SGD(params(), 0.1, nesterov=True)
    with pytest.raises(TypeError, match=r'got a Linear: pass model.parameters\(\)'): SGD(nn.Linear(2, 2), 0.1)


def test_an_interrupt_in_the_middle_of_a_step_leaves_an_optimizer_that_goes_on():
    calls = 0
    def interrupt(ps, gs, **_):
        nonlocal calls
        calls += 1
        if calls == 2: raise KeyboardInterrupt
    ps = params([(60, 100), (10,)])
    opt = StatefulOptimizer(ps, [average_grad, average_sqr_grad, interrupt, adam_ratio, sgd_step],
                            lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    losses = []
    for i in range(40):
        opt.zero_grad()
        loss = sum(p.square().sum() for p in ps) / 6000
        loss.backward()
        losses.append(loss.item())
        if i == 0:
            with pytest.raises(KeyboardInterrupt): opt.step()
            assert all(set(opt.state[p]) == {'step', 'exp_avg', 'exp_avg_sq'} for p in ps)
            opt.load_state_dict(opt.state_dict())
        else: opt.step()
    assert losses[-1] < 0.6*losses[0] and all(p.isfinite().all() for p in ps)


def test_a_plain_function_is_a_stepper_and_a_statistic_is_kept_for_it():
    @stepper(keeps='largest')
    def keep_largest(ps, gs, largest, **_):
        for l, g in zip(largest, gs): torch.maximum(l, g.abs(), out=l)
    def divide(ps, gs, largest, **_): return torch._foreach_div(gs, largest)
    p = nn.Parameter(torch.zeros(2))
    opt = StatefulOptimizer([p], [keep_largest, divide, sgd_step], lr=0.1)
    for g in [2., -4.], [1., 4.]:
        p.grad = torch.tensor(g)
        opt.step()
    torch.testing.assert_close(p.detach(), torch.tensor([-0.1 - 0.05, 0.1 - 0.1]))


def test_the_lecture_settings():
    group = lecture_adamw([torch.zeros(1)], lr=0.1).param_groups[0]
    assert (group['betas'], group['eps'], group['weight_decay'], group['lr']) == ((0.9, 0.99), 1e-6, 1e-2, 0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@each
def test_on_a_gpu_nothing_waits_and_the_result_is_the_same(make):
    ps, qs = params(), [nn.Parameter(p.detach().cuda()) for p in params()]
    a, b = make(ps), make(qs)
    train(a, ps, range(3))
    for seed in range(3):
        feed(ps, seed)
        for p, q in zip(ps, qs): q.grad = p.grad.cuda()
        torch.cuda.set_sync_debug_mode('error')
        try: b.step()
        finally: torch.cuda.set_sync_debug_mode('default')
    for p, q in zip(ps, qs): torch.testing.assert_close(p, q.cpu(), rtol=1e-4, atol=1e-5)
