"Schedules, one cycle, PyTorch's schedulers and the learning-rate finder: what crosses chapters (06)."
import math
import random
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam, AdamW, lr_scheduler as ls
from torch.utils.data import DataLoader, TensorDataset

from minidl.learner import (Callback, CancelBatch, Checkpoint, GradientAccumulation, Learner, Recorder, SanityCheck,
                            ToDevice, get_hyper, set_hyper)
from minidl.schedule import (LRCurve, ParamScheduler, TorchScheduler, annealer, combine_scheds, create_phases,
                             fit_position, _longest_fall, lr_find, restored, sched_1cycle, sched_cos, sched_exp,
                             sched_lin, sched_no, sched_poly, spread_lrs)
from minidl.training import DataLoaders, get_dls

N, BS = 70, 8   # 9 batches an epoch, the last one ragged
XS, YS = torch.randn(N, 6, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 3
momentum = partial(SGD, momentum=0.9)
two_groups = lambda model: [model[0], nn.ModuleList(model[1:])]


def get_model(dropout=0.2):
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def get_learner(*cbs, opt_func=momentum, lr=0.1, seed=0, dls=None, model=None, **kwargs):
    torch.manual_seed(seed)
    dls = dls or get_dls(TensorDataset(XS, YS), TensorDataset(XS[:20], YS[:20]), bs=BS)
    return Learner(model or get_model(), dls, F.cross_entropy, opt_func, lr=lr, default_cbs=False,
                   cbs=[SanityCheck(), ToDevice('cpu'), Recorder(), *cbs], **kwargs)


def first_lrs(learn): return [lrs[0] for lrs in learn.recorder.lrs]


class Raises(Callback):
    "Raises an error at a batch of a fit."
    order = 99
    def __init__(self, error, epoch, batch): self.error, self.at = error, (epoch, batch)
    def after_batch(self, learn):
        if learn.training and (learn.epoch, learn.iter) == self.at: raise self.error


# ---- schedules

FAMILY = [sched_lin, sched_cos, sched_exp, sched_poly, partial(sched_poly, power=0.5)]


@given(start=st.floats(1e-6, 1e3), end=st.floats(1e-6, 1e3), pos=st.floats(0, 1))
@settings(max_examples=60)
def test_a_schedule_goes_from_start_to_end_and_stays_between(start, end, pos):
    for family in FAMILY:
        sched = family(start, end)
        slack = 1e-12 * max(start, end)   # rounding
        assert math.isclose(sched(0.), start, rel_tol=1e-9, abs_tol=slack)
        assert math.isclose(sched(1.), end, rel_tol=1e-9, abs_tol=slack)
        assert min(start, end) - slack <= sched(pos) <= max(start, end) + slack
    assert sched_no(start, end)(pos) == start


def test_an_annealer_keeps_name_and_doc_and_passes_arguments_on():
    @annealer
    def sched_steps(start, end, pos, n=2, *, up=True):
        "Some steps."
        return start + (end-start)*int(pos*n)/n if up else end
    assert sched_steps.__name__ == 'sched_steps' and sched_steps.__doc__ == 'Some steps.'
    assert sched_steps(0, 1, 4)(0.3) == 0.25 and sched_steps(0, 1, n=4, up=False)(0.3) == 1


def test_wrong_arguments_of_a_schedule_fail_where_they_are_written():
    with pytest.raises(ValueError, match='does not lead from -1 to 1'): sched_exp(-1, 1)
    with pytest.raises(TypeError): sched_lin(0, 1, power=3)


@given(shares=st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(lambda s: sum(s) > 0), pos=st.floats(0, 1))
@settings(max_examples=80)
def test_combined_schedules_cover_all_positions(shares, pos):
    pcts = [s/sum(shares) for s in shares]
    steps = combine_scheds(pcts, [sched_no(i, i) for i in range(len(pcts))])
    assert pcts[steps(pos)] > 0 or steps(pos) == len(pcts)-1  # an empty phase is passed over, unless it is the very end
    # one line, cut into pieces
    line = combine_scheds(pcts, [sched_lin(sum(pcts[:i]), sum(pcts[:i+1])) for i in range(len(pcts))])
    assert math.isclose(line(pos), pos, abs_tol=1e-9)


def test_shares_must_be_one_for_each_schedule_and_add_up_to_one():
    a = sched_no(1, 1)
    combine_scheds([0.1, 0.2, 0.7], [a]*3)     # 0.9999999999999999
    combine_scheds([1/3]*3, [a]*3)
    for pcts, n, text in [([0.5, 0.6], 2, 'add up to 1.1'), ([0.5, 0.5], 1, '2 shares for 1'),
                          ([1.5, -0.5], 2, 'less than nothing'), ([], 0, '0 shares')]:
        with pytest.raises(ValueError, match=text): combine_scheds(pcts, [a]*n)
    assert create_phases(0.3) == [0.3, 0.7] and create_phases([]) == [1.]
    assert create_phases([0.3, 0.7]) == [0.3, 0.7, 0.]
    for phases in (1.2, [0.5, 0.6], [-0.1]):
        with pytest.raises(ValueError, match='shares of one fit'): create_phases(phases)


# ---- ParamScheduler

def test_the_first_batch_is_at_position_0_and_the_last_at_1():
    class Where(Callback):
        def __init__(self): self.seen = []
        def before_batch(self, learn):
            if learn.training: self.seen.append(fit_position(learn))
    learn = get_learner(where := Where())
    learn.fit(3)
    assert where.seen == [k/26 for k in range(27)]
    where.seen = []
    # one batch in all: there is no last one to go to
    get_learner(where2 := Where(), dls=DataLoaders([(XS, YS)])).fit(1)
    assert where2.seen == [0.]


def test_values_are_put_back_after_a_fit_an_error_and_ctrl_c():
    for error in (None, KeyError('oh'), KeyboardInterrupt):
        learn = get_learner(opt_func=AdamW)
        scheds = [ParamScheduler('mom', sched_lin(0.5, 0.1)), ParamScheduler('sqr_mom', sched_lin(0.5, 0.1)),
                  ParamScheduler('wd', sched_cos(1., 0.)),
                  ParamScheduler('eps', sched_exp(1e-3, 1e-6)), ParamScheduler('lr', sched_lin(1., 0.))]
        try: learn.fit(2, lr=0.01, cbs=scheds + ([Raises(error, 1, 2)] if error else []))
        except (KeyError, KeyboardInterrupt): assert error
        group = learn.opt.param_groups[0]
        assert (group['lr'], group['betas'], group['weight_decay'], group['eps']) == (0.01, (0.9, 0.999), 0.01, 1e-8)
        learn.fit(1, cbs=scheds)   # the callbacks can be used again


def test_a_schedule_for_each_group_and_groups_that_are_free_of_decay():
    learn = get_learner(opt_func=AdamW, splitter=two_groups, decay_norm_bias=False)
    seen = []
    class See(Callback):
        order = 50
        def before_step(self, learn): seen.append([(g['lr'], g['weight_decay']) for g in learn.opt.param_groups])
    learn.fit(1, wd=0.3, cbs=[ParamScheduler('lr', [sched_lin(0.1, 0.2), sched_no(0.5, 0.5)]),
                              ParamScheduler('wd', sched_lin(0.1, 0.2)), See()])
    assert len(learn.opt.param_groups) == 4
    torch.testing.assert_close(seen[-1], [(0.2, 0.2), (0.2, 0.), (0.5, 0.2), (0.5, 0.)])
    assert [g['weight_decay'] for g in learn.opt.param_groups] == [0.3, 0., 0.3, 0.]
    with pytest.raises(ValueError, match='3 values of lr for 2 parameter groups'):
        learn.fit(1, cbs=ParamScheduler('lr', [sched_no(1, 1)]*3))


def test_a_rate_in_a_tensor_stays_the_same_tensor():
    learn = get_learner(opt_func=lambda params, lr: AdamW(params, lr=torch.tensor(float(lr))))
    learn.fit(1)
    tensor = learn.opt.param_groups[0]['lr']
    learn.fit(1, lr=0.25, cbs=ParamScheduler('lr', sched_lin(0.5, 0.125)))
    assert learn.opt.param_groups[0]['lr'] is tensor and tensor == 0.25


def test_two_schedules_of_one_hyperparameter_are_refused():
    a, b = (ParamScheduler('lr', sched_no(1, 1)) for _ in range(2))
    with pytest.raises(ValueError, match='Two callbacks schedule lr'): get_learner(a).fit(1, cbs=b)
    with pytest.raises(ValueError, match='Two callbacks schedule lr'):
        get_learner(ParamScheduler('lr', sched_no(1, 1))).fit(1, cbs=TorchScheduler(partial(ls.StepLR, step_size=3)))
    with pytest.raises(KeyError, match='no momentom'):
        get_learner().fit(1, cbs=ParamScheduler('momentom', sched_no(1, 1)))


def test_a_loader_without_a_length_is_a_sentence():
    class Stream:
        def __iter__(self): return iter([(XS, YS)]*3)
    with pytest.raises(ValueError, match='has no length'): get_learner(dls=DataLoaders(Stream())).fit_one_cycle(1)


def test_validation_does_not_move_a_schedule():
    class Look(Callback):
        order = 98
        def after_epoch(self, learn):
            self.lr = learn.opt.param_groups[0]['lr']
            learn.validate()
            assert learn.opt.param_groups[0]['lr'] == self.lr
    learn = get_learner(Look())
    learn.fit(2, cbs=ParamScheduler('lr', sched_lin(1e-2, 1e-3)))
    assert len(learn.recorder.lrs) == 18


# ---- one cycle and flat-cos

@pytest.mark.parametrize('opt_func', [momentum, Adam, AdamW])
@pytest.mark.parametrize('n_epochs,pct', [(1, 0.25), (3, 0.25), (5, 0.4), (12, 0.3)])
def test_one_cycle_equals_torch_step_for_step(opt_func, n_epochs, pct):
    n = 9*n_epochs
    torch_sched = partial(ls.OneCycleLR, max_lr=0.03, total_steps=n, pct_start=pct, div_factor=20.,
                          final_div_factor=1e4/20, base_momentum=0.8, max_momentum=0.9)
    theirs = get_learner(opt_func=opt_func)
    theirs.fit(n_epochs, cbs=TorchScheduler(torch_sched))
    ours = get_learner(opt_func=opt_func)
    ours.fit_one_cycle(n_epochs, lr_max=0.03, pct_start=(pct*n-1)/(n-1), div=20, div_final=1e4, moms=(0.9, 0.8, 0.9))
    torch.testing.assert_close(ours.recorder.lrs, theirs.recorder.lrs, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(ours.recorder.moms, theirs.recorder.moms, rtol=1e-9, atol=0)
    for a, b in zip(ours.model.parameters(), theirs.model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('n_epochs', [1, 4])
def test_cosine_linear_exponential_and_polynomial_equal_torch(n_epochs):
    n = 9*n_epochs - 1
    pairs = [(sched_cos(0.1, 1e-4), partial(ls.CosineAnnealingLR, T_max=n, eta_min=1e-4)),
             (sched_lin(0.1, 0.02), partial(ls.LinearLR, start_factor=1., end_factor=0.2, total_iters=n)),
             (sched_exp(0.1, 0.001), partial(ls.ExponentialLR, gamma=0.01**(1/n)))]
    for ours, theirs in pairs:
        runs = []
        for cb in (ParamScheduler('lr', ours), TorchScheduler(theirs)):
            learn = get_learner()
            learn.fit(n_epochs, cbs=cb)
            runs.append(first_lrs(learn))
        torch.testing.assert_close(*runs, rtol=1e-9, atol=1e-12)
    theirs = get_learner()
    # torch's power is of what is left
    theirs.fit(n_epochs, cbs=TorchScheduler(partial(ls.PolynomialLR, total_iters=n, power=1.)))
    torch.testing.assert_close([sched_poly(0.1, 0., power=1.)(k/n) for k in range(n+1)], first_lrs(theirs), rtol=1e-7,
                               atol=1e-9)


def test_an_optimizer_without_momentum_keeps_none_and_others_get_theirs_back():
    for opt_func, has in [(SGD, False), (momentum, True), (torch.optim.Adagrad, False), (torch.optim.RMSprop, False),
                          (AdamW, True), (partial(AdamW, betas=(0., 0.9)), False)]:
        learn = get_learner(opt_func=opt_func, lr=0.01)
        learn.fit_one_cycle(1)
        if not has: assert set(learn.recorder.moms) <= {0.}
        else: assert learn.recorder.moms[0] == 0.95 and get_hyper(learn.opt, 'mom') == 0.9
    learn = get_learner()
    learn.fit_one_cycle(1, moms=None)
    assert set(learn.recorder.moms) == {0.9}


def test_fit_one_cycle_passes_everything_on_to_fit():
    seen = []
    class See(Callback):
        def before_fit(self, learn): seen.append(learn.opt.param_groups[0]['weight_decay'])
    learn = get_learner()
    for fit in (learn.fit_one_cycle, learn.fit_flat_cos):
        learn.fit(1)
        opt = learn.opt
        fit(1, 0.05, wd=0.125, cbs=See())
        assert learn.opt is opt and learn.fit_args['lr'] == 0.05
        fit(1, 0.05, cbs=[See()], reset_opt=True)
        assert learn.opt is not opt
        assert [type(c) for c in learn.cbs] == [SanityCheck, ToDevice, Recorder]
    assert seen == [0.125, 0., 0.125, 0.]
    learn.fit_one_cycle(2)
    assert max(first_lrs(learn)) == pytest.approx(learn.lr, rel=0.02)   # the learner's own rate


@pytest.mark.parametrize('lr_max', [[0.01, 0.1], (0.01, 0.1), slice(0.01, 0.1)])
def test_rates_for_each_group_and_pairs_to_spread(lr_max):
    learn = get_learner(splitter=two_groups)
    learn.fit_one_cycle(3, lr_max=lr_max, pct_start=0.5)
    assert [max(lrs) for lrs in zip(*learn.recorder.lrs)] == pytest.approx([0.01, 0.1])
    learn.fit_flat_cos(3, lr_max)
    assert learn.recorder.lrs[0] == pytest.approx([0.01, 0.1])
    with pytest.raises(ValueError, match='only one rate'): learn.fit_one_cycle(1, slice(0.1))


def test_a_pair_is_spread_by_factors_over_many_groups():
    learn = get_learner(splitter=lambda m: [m[0], m[1], m[4]])
    learn.fit_one_cycle(1, (1e-4, 1e-2))
    assert learn.fit_args['lr'] == pytest.approx([1e-4, 1e-3, 1e-2])
    assert spread_lrs(1., 8., 4) == pytest.approx([1, 2, 4, 8])


# ---- resuming

def weights(learn): return [t.clone() for t in learn.model.state_dict().values()]


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b): assert torch.equal(x, y)


@pytest.mark.parametrize('epoch,batch', [(0, 4), (1, 0), (1, 7), (2, 8)])
@pytest.mark.parametrize('kind', ['one_cycle', 'flat_cos', 'groups', 'accumulate'])
def test_a_scheduled_run_resumes_with_the_same_bits(tmp_path, epoch, batch, kind):
    def run(folder, *cbs, seed=0, **kwargs):
        cbs = [*cbs, Checkpoint(tmp_path/folder, every=2)] + ([GradientAccumulation(2)] if kind == 'accumulate' else [])
        learn = get_learner(*cbs, opt_func=AdamW, seed=seed, splitter=two_groups)
        fit = learn.fit_flat_cos if kind == 'flat_cos' else learn.fit_one_cycle
        fit(**kwargs)
        return learn
    args = dict(n_epochs=3, **({'lr_max': (0.01, 0.1)} if kind == 'groups' else {}))
    whole = run('whole', **args)
    with pytest.raises(RuntimeError, match='power cut'):
        run('cut', Raises(RuntimeError('power cut'), epoch, batch), **args)
    again = run('cut', seed=99, resume=tmp_path/'cut')
    assert_same(weights(again), weights(whole))
    assert again.recorder.lrs == whole.recorder.lrs and again.recorder.moms == whole.recorder.moms
    assert again.opt.param_groups[0]['betas'] == (0.9, 0.999)   # put back to what was before the first fit


def test_resuming_with_another_schedule_or_none_is_refused(tmp_path):
    with pytest.raises(RuntimeError):
        get_learner(Checkpoint(tmp_path/'a', every=2), Raises(RuntimeError('cut'), 0, 5)).fit_one_cycle(2, 0.1)
    again = lambda: get_learner(Checkpoint(tmp_path/'a'))
    with pytest.raises(ValueError, match='another schedule of lr'): again().fit_one_cycle(resume=tmp_path/'a', div=10)
    with pytest.raises(ValueError, match='another schedule of mom'):
        again().fit_one_cycle(resume=tmp_path/'a', moms=(0.9, 0.8, 0.9))
    with pytest.raises(ValueError, match='with lr=0.1, not 0.2'): again().fit_one_cycle(resume=tmp_path/'a', lr_max=0.2)
    with pytest.raises(ValueError, match='no such callback'): again().fit(resume=tmp_path/'a')
    again().fit_one_cycle(resume=tmp_path/'a')
    with pytest.raises(RuntimeError):
        get_learner(Checkpoint(tmp_path/'b', every=2), Raises(RuntimeError('cut'), 0, 5)).fit(2, 0.1)
    with pytest.raises(ValueError, match='without a schedule'):
        get_learner(Checkpoint(tmp_path/'b')).fit_one_cycle(resume=tmp_path/'b')


# ---- PyTorch's schedulers

def sequential(opt):
    # resumed before the change
    return ls.SequentialLR(opt, [ls.LinearLR(opt, 0.1, total_iters=5), ls.MultiStepLR(opt, [2, 4])], milestones=[20])
def chained(opt): return ls.ChainedScheduler([ls.ConstantLR(opt, 0.5, 4), ls.ExponentialLR(opt, 0.9)])


SCHEDULERS = dict(step=partial(ls.StepLR, step_size=4), multistep=partial(ls.MultiStepLR, milestones=[3, 3, 12]),
                  constant=partial(ls.ConstantLR, total_iters=7),
                  linear=partial(ls.LinearLR, total_iters=20), exponential=partial(ls.ExponentialLR, gamma=0.9),
                  polynomial=partial(ls.PolynomialLR, total_iters=20, power=2.),
                  cosine=partial(ls.CosineAnnealingLR, T_max=11),
                  restarts=partial(ls.CosineAnnealingWarmRestarts, T_0=5, T_mult=2),
                  cyclic=partial(ls.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=5),
                  one_cycle=partial(ls.OneCycleLR, max_lr=0.2, total_steps=27),
                  lambda_=partial(ls.LambdaLR, lr_lambda=lambda k: 0.9**k),
                  multiplicative=partial(ls.MultiplicativeLR, lr_lambda=lambda k: 0.9),
                  sequential=sequential, chained=chained)


def bare_lrs(make):
    "The rates of 27 steps in a loop by hand."
    opt = momentum(get_model().parameters(), lr=0.1)
    sched, lrs = make(opt), []
    for _ in range(27):
        lrs.append(opt.param_groups[0]['lr'])
        opt.step()
        sched.step()
    return lrs


@pytest.mark.filterwarnings('ignore::UserWarning')   # SequentialLR's own use of its deprecated epoch argument
@pytest.mark.parametrize('name', SCHEDULERS)
def test_a_torch_scheduler_equals_the_loop_by_hand_resumes_exactly_and_leaves_nothing_behind(tmp_path, name):
    make = SCHEDULERS[name]
    def run(folder, *cbs, **kwargs):
        learn = get_learner(*cbs, Checkpoint(tmp_path/folder, every=2), TorchScheduler(make))
        learn.fit(**kwargs)
        return learn
    whole = run('whole', n_epochs=3)
    torch.testing.assert_close(first_lrs(whole), bare_lrs(make), rtol=1e-12, atol=0)
    with pytest.raises(RuntimeError): run('cut', Raises(RuntimeError('cut'), 1, 4), n_epochs=3)
    again = run('cut', resume=tmp_path/'cut')
    assert first_lrs(again) == first_lrs(whole)
    assert_same(weights(again), weights(whole))
    for learn in (whole, again):
        fresh = momentum(get_model().parameters(), lr=0.1).param_groups[0]
        left = {k: v for k, v in learn.opt.param_groups[0].items() if k not in ('params', 'group')}
        assert left == {k: v for k, v in fresh.items() if k != 'params'}
        assert 'step' not in vars(learn.opt)
    whole.fit(1, lr=0.02)   # the same scheduler again, from another base rate
    expected = {'one_cycle': 0.2/25, 'cyclic': 0.01, 'constant': 0.02/3, 'linear': 0.02/3, 'sequential': 0.002,
                'chained': 0.01}.get(name, 0.02)
    assert first_lrs(whole)[0] == pytest.approx(expected)


def test_a_cancelled_step_does_not_advance_a_torch_scheduler():
    learn = get_learner(GradientAccumulation(3))
    learn.fit(2, cbs=TorchScheduler(partial(ls.ExponentialLR, gamma=0.5)))
    assert first_lrs(learn) == [0.1 * 0.5**(k//3) for k in range(18)]


def test_torch_schedulers_by_epoch_and_the_plateau():
    learn = get_learner()
    learn.fit(3, cbs=TorchScheduler(partial(ls.ExponentialLR, gamma=0.5), per='epoch'))
    assert first_lrs(learn)[::9] == [0.1, 0.05, 0.025]
    learn.fit(4, lr=1e-9, cbs=TorchScheduler(partial(ls.ReduceLROnPlateau, patience=0, threshold=0.5, eps=0.),
                                             per='epoch', monitor='train_loss'))
    torch.testing.assert_close(first_lrs(learn)[::9], [1e-9, 1e-9, 1e-10, 1e-11], rtol=1e-6, atol=0)
    plateau = lambda **kwargs: get_learner().fit(1, cbs=TorchScheduler(ls.ReduceLROnPlateau, **kwargs))
    with pytest.raises(ValueError, match="per='epoch'"): plateau()
    with pytest.raises(KeyError, match='watches .accurracy., but an epoch has epoch, train_loss'):
        plateau(per='epoch', monitor='accurracy')
    with pytest.raises(ValueError, match="'batch' or 'epoch'"): TorchScheduler(ls.StepLR, per='step')


def test_a_plateau_scheduler_resumes(tmp_path):
    make = partial(ls.ReduceLROnPlateau, patience=1, threshold=0.5)
    def run(folder, *cbs, **kwargs):
        learn = get_learner(*cbs, Checkpoint(tmp_path/folder), TorchScheduler(make, per='epoch'))
        learn.fit(**kwargs)
        return learn
    whole = run('whole', n_epochs=6)
    with pytest.raises(RuntimeError): run('cut', Raises(RuntimeError('cut'), 3, 2), n_epochs=6)
    again = run('cut', resume=tmp_path/'cut')
    assert first_lrs(again) == first_lrs(whole) and len(set(first_lrs(whole))) > 1


# ---- lr_find

class Counts(Callback):
    "A callback of the user's own, with a memory, that takes part in training steps."
    order = 1
    def __init__(self): self.n, self.seen, self.model = 0, [], None
    def before_batch(self, learn): self.n += 1; self.seen.append(self.n); self.model = learn.model


class Remembers(nn.Module):
    "A module that keeps what is neither weight nor buffer, as recurrent networks do."
    def __init__(self):
        super().__init__()
        self.hidden, self.log = torch.zeros(1), []
        self.register_buffer('unsaved', torch.zeros(1), persistent=False)
    def forward(self, x):
        self.hidden, self.unsaved = self.hidden + 1, self.unsaved + 1
        self.log.append(1)
        return x


def state_of(learn):
    "Everything that a fit could change, as comparable lists."
    opt = learn.opt
    rng = [torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64)),
           torch.tensor(np.random.get_state()[2]), torch.tensor(random.getstate()[1])]
    tensors = [t.detach().clone() for t in (*learn.model.parameters(), *learn.model.buffers())]
    grads = [p.grad for p in learn.model.parameters()]
    states = [] if opt is None else opt.state.values()
    memory = [v.clone() for s in states for v in s.values() if isinstance(v, torch.Tensor)]
    hypers = None if opt is None else [{k: v for k, v in g.items() if k != 'params'} for g in opt.param_groups]
    attrs = {k: v for k, v in vars(learn).items() if k not in ('_handlers',)}
    modes = [(m.training, len(m._forward_hooks)) for m in learn.model.modules()]
    flags = [p.requires_grad for p in learn.model.parameters()]
    rec = learn.recorder
    recorded = (list(rec.losses), list(rec.lrs)) if hasattr(rec, 'done') else None
    return rng, tensors, grads, memory, hypers, attrs, list(learn.cbs), modes, flags, recorded


def assert_same_state(a, b):
    for x, y in zip(a[:2], b[:2]): assert_same(x, y)
    assert all(x is y for x, y in zip(a[2], b[2]))
    assert_same(a[3], b[3])
    assert a[4] == b[4]
    assert a[5].keys() == b[5].keys() and all(a[5][k] is b[5][k] or a[5][k] == b[5][k] for k in a[5])
    assert len(a[6]) == len(b[6]) and all(x is y for x, y in zip(a[6], b[6]))
    assert a[7:] == b[7:]


@pytest.mark.parametrize('how', ['ends', 'ctrl_c', 'error'])
@pytest.mark.parametrize('fitted', [False, True])
@pytest.mark.parametrize('opt_func', [momentum, AdamW, SGD])
def test_lr_find_leaves_no_trace(how, fitted, opt_func):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), Remembers(), nn.Dropout(0.3), nn.Linear(8, 3))
    model[0].bias.requires_grad_(False)
    class Rolls(Callback):
        "Draws from every generator, as augmentation does."
        def before_batch(self, learn): random.random(), np.random.rand(), torch.rand(1)
    counts = Counts()
    learn = get_learner(counts, Rolls(), ParamScheduler('wd', sched_lin(0.1, 0.2)), opt_func=opt_func, model=model)
    if fitted: learn.fit(2)
    model.eval()
    before, n, seen = state_of(learn), counts.n, list(counts.seen)
    log, hidden, opt = len(model[2].log), model[2].hidden, learn.opt
    sampler = learn.dls.train.sampler
    sampler.set_epoch(5, 2)
    if how == 'ends': learn.lr_find(n=25)
    else:
        error = KeyboardInterrupt() if how == 'ctrl_c' else ValueError('oh')
        with pytest.raises(type(error)): learn.lr_find(cbs=Raises(error, 0, 3))
    assert_same_state(before, state_of(learn))
    assert learn.opt is opt and (counts.n, counts.seen, counts.model) == (n, seen, model if fitted else None)
    assert len(model[2].log) == log and model[2].hidden is hidden
    assert (sampler.epoch, sampler.skip) == (5, 2)
    learn.fit(1)
    assert counts.n > n


def test_lr_find_puts_back_what_a_model_changes_in_place():
    class Counts(nn.Linear):
        def forward(self, x):
            self.seen += len(x)
            return super().forward(x)
    model = Counts(6, 3)
    seen = model.seen = torch.tensor(5)   # no buffer
    get_learner(model=model).lr_find(n=5)
    assert model.seen is seen and seen == 5


def test_training_after_lr_find_equals_training_without_it():
    def run(find, **kwargs):
        learn = get_learner(**kwargs)
        learn.fit(1)
        if find: learn.lr_find(n=30)
        learn.fit_one_cycle(2, 0.05)
        return weights(learn) + [torch.tensor(learn.recorder.losses)]
    for kwargs in (dict(opt_func=AdamW), dict(opt_func=momentum, splitter=two_groups),
                   # torch's own loader draws from the global generator
                   dict(dls=DataLoaders(DataLoader(TensorDataset(XS, YS), 8, shuffle=True)))):
        assert_same(run(True, **kwargs), run(False, **kwargs))
    own = lambda: DataLoaders(DataLoader(TensorDataset(XS, YS), 8, shuffle=True,
                                         generator=torch.Generator().manual_seed(3)))   # or from one of its own
    assert_same(run(True, dls=own()), run(False, dls=own()))


def test_a_float64_memory_of_the_optimizer_survives_lr_find():
    learn = get_learner()
    learn.fit(1)
    for s in learn.opt.state.values(): s['momentum_buffer'] = s['momentum_buffer'].double()
    kept = [s['momentum_buffer'] for s in learn.opt.state.values()]
    values = [t.clone() for t in kept]
    learn.lr_find(n=5, cbs=Dummy())
    for s, t, v in zip(learn.opt.state.values(), kept, values):
        assert s['momentum_buffer'] is t and torch.equal(t, v) and t.dtype == torch.float64


class Dummy(Callback):
    "Stands in for a step, so that no arithmetic of mixed types is made."
    def before_fit(self, learn): learn.step = lambda: True


@pytest.mark.parametrize('dls', [DataLoaders([(XS, YS)]*3, [(XS, YS)]), get_dls(TensorDataset(XS, YS), bs=32)])
def test_lr_find_goes_over_a_short_loader_again(dls):
    found = get_learner(dls=dls).lr_find(n=20, end=1.)
    assert len(found.losses) == len(found.lrs) == 20
    assert found.lrs[0] == 1e-7 and found.lrs[-1] == pytest.approx(1.)
    assert found.lrs == pytest.approx([1e-7 * 1e7**(k/19) for k in range(20)])


def test_lr_find_takes_a_loader_without_a_length():
    class Stream:
        def __iter__(self): return iter([(XS, YS)]*3)
    assert len(get_learner(dls=DataLoaders(Stream())).lr_find(n=7, end=1e-3).losses) == 7


def test_lr_find_stops_when_the_loss_explodes_or_is_no_number():
    class Set(Callback):
        "Losses from a list."
        def __init__(self, losses): self.losses = losses
        def after_loss(self, learn):
            learn.loss = learn.loss_grad = learn.loss_grad*0 + self.losses[learn.epoch*learn.n_iter + learn.iter]
    found = get_learner().lr_find(cbs=Set([2., 1., 1., 1., 50.] + [1.]*200))
    assert found.losses == [2., 1., 1., 1., 50.]
    assert len(get_learner().lr_find(cbs=Set([2.]*30 + [math.nan]*200)).losses) == 30
    # losses may be under zero
    assert len(get_learner().lr_find(cbs=Set([-1. - 0.01*k for k in range(200)])).losses) == 100
    flat = get_learner().lr_find(cbs=Set([1. + 0.01*k for k in range(200)]))
    assert flat.suggestions == dict(steepest=None, minimum=None, valley=None) and 'steepest None' in repr(flat)
    flat.plot()
    with pytest.raises(ValueError, match='very first loss'): get_learner().lr_find(cbs=Set([math.inf]*200))


def test_lr_find_keeps_callbacks_of_the_step_and_sets_the_others_aside(tmp_path):
    class Watch(Callback):
        order = 60
        def before_fit(self, learn): raise AssertionError('set aside')
    learn = get_learner(Counts(), Checkpoint(tmp_path), GradientAccumulation(2))
    learn.add_cb(Watch())
    seen = []
    class See(Callback):
        def before_batch(self, learn): seen.append({type(c) for c in learn.cbs})
    learn.lr_find(n=4, end=1e-3, cbs=See())
    assert {SanityCheck, ToDevice, Counts, GradientAccumulation} <= seen[0]
    assert not {Recorder, Checkpoint, Watch} & seen[0]
    assert not list(tmp_path.iterdir())


def test_lr_find_refuses_what_cannot_be():
    for kwargs in (dict(start=0.), dict(start=1., end=0.1), dict(n=1)):
        with pytest.raises(ValueError, match='give 0 < start < end'): lr_find(get_learner(), **kwargs)
    with pytest.raises(ValueError, match='no training data'): Learner(get_model(), None, F.cross_entropy).lr_find()
    class Nested(Callback):
        def after_batch(self, learn): learn.lr_find()
    with pytest.raises(RuntimeError, match='in a fit already'): get_learner(Nested()).fit(1)


def test_suggestions_lie_where_they_say():
    lrs = [1e-6 * 10**(k/15) for k in range(106)]
    curve = LRCurve(lrs, [1. if lr < 1e-4 else 1 - 0.4*(math.log10(lr)+4)/2 if lr < 1e-2 else 0.6 + 3*(lr-0.01)
                          for lr in lrs])
    assert 3e-4 < curve.minimum < 3e-3 and 1e-4 < curve.steepest < 1e-2 and 1e-4 < curve.valley < 1e-2
    ax = curve.plot()
    assert ax.get_xscale() == 'log' and len(ax.get_legend().get_texts()) == 5


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9))
@settings(max_examples=50)
def test_longest_fall_is_the_longest(values):
    from itertools import combinations
    falls = lambda c: all(a > b for a, b in zip(c, c[1:]))
    longest = max(k for k in range(1, len(values)+1) for c in combinations(values, k) if falls(c))
    path = _longest_fall(values)
    assert len(path) == longest and path == sorted(set(path)) and falls([values[i] for i in path])


def test_a_restored_block_may_do_anything():
    learn = get_learner(opt_func=AdamW)
    learn.fit(1)
    before = state_of(learn)
    with pytest.raises(ZeroDivisionError), restored(learn):
        learn.fit_one_cycle(2, 1.)
        learn.model[0].weight.data.zero_()
        learn.model[0].register_forward_hook(lambda *_: None)
        learn.add_cb(Counts())
        learn.opt.param_groups[0]['lr'] = 7.
        learn.new, learn.lr = 1, 2.
        1/0
    assert_same_state(before, state_of(learn))
