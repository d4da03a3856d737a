"The Learner (chapter 05): its events, cancelling, errors, what it averages, and what its callbacks do."
import copy
import csv
import functools
import gc
import math
import os
import pty
import subprocess
import sys
import warnings
import weakref
from collections import UserDict, namedtuple
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import (BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler,
                              SubsetRandomSampler, TensorDataset)

from minidl import learner, schedule
from minidl.learner import (EMA, EVENTS, Callback, CancelBackward, CancelBatch, CancelEpoch, CancelFit, CancelStep,
                            CancelTrain, CancelValidate, Checkpoint, CSVLogger, EarlyStopping, GradientAccumulation,
                            GradientClip, Journal, Learner, Perplexity, Progress, Recorder, SanityCheck,
                            TensorBoardLogger, TerminateOnNaN, ToDevice, error_rate, get_hyper, load_learner,
                            read_journal, register, rmse, set_hyper, top_k)
from minidl.training import DataLoaders, accuracy, get_dls

CANCEL = dict(batch=CancelBatch, train=CancelTrain, validate=CancelValidate, epoch=CancelEpoch, fit=CancelFit)


def samples(n=20, seed=0):
    g = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, 4, generator=g), torch.randint(0, 3, (n,), generator=g))

def loaders(n=20, n_valid=10, bs=8): return get_dls(samples(n), samples(n_valid, seed=1), bs=bs, valid_bs=4)

def net(p=0.):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(p), nn.Linear(8, 3))

def make(*cbs, model=None, dls=None, loss_func=F.cross_entropy, opt_func=torch.optim.SGD, lr=0.1, **kw):
    "A learner that prints nothing: 3 batches to train on (8, 8, 4), 3 to validate on (4, 4, 2)."
    return Learner(model or net(), dls or loaders(), loss_func, opt_func, lr=lr, cbs=[Recorder(), *cbs],
                   default_cbs=False, **kw)

def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]
def assert_equal(a, b): assert len(a) == len(b) and all(torch.equal(s, t) for s, t in zip(a, b))
def assert_close(a, b): torch.testing.assert_close(list(a), list(b))
def notes(error): return '\n'.join(getattr(error.value, '__notes__', []))


class Spy(Callback):
    "Writes down every event, before any other callback hears it."
    order = -1000
    def __init__(self): self.heard = []
for event in EVENTS: setattr(Spy, event, lambda self, learn, event=event: self.heard.append(event))


class At(Callback):
    "At the `nth` announcement of `event`, calls `do(learn)`."
    def __init__(self, event, do, nth=0, order=0):
        self.order, self.calls = order, 0
        def call(learn):
            self.calls += 1
            if self.calls == nth + 1: do(learn)
        setattr(self, event, call)

def throw(exc):
    def do(learn): raise exc
    return do


# ---- events

TRAIN = 'before_batch after_pred after_loss before_backward after_backward before_step after_step after_batch'.split()
VALID = 'before_batch after_pred after_loss after_batch'.split()

def whole_fit(n_epochs=2, n_batches=2):
    "Every event of a fit in order, each with the parts it is in, outermost first."
    run = []
    def part(name, number, inside, outer=()):
        here = (*outer, (name, number))
        run.append((f'before_{name}', here))
        inside(here)
        run.append((f'after_{name}', here))
    def batches(events):
        return lambda here: [run.extend((e, (*here, ('batch', i))) for e in events) for i in range(n_batches)]
    def epoch(here):
        part('train', 0, batches(TRAIN), here)
        part('validate', 0, batches(VALID), here)
    part('fit', 0, lambda here: [part('epoch', i, epoch, here) for i in range(n_epochs)])
    return run

def small(*cbs, **kw): return make(*cbs, dls=loaders(n=16, n_valid=8), **kw)   # 2 batches and 2

def test_a_fit_announces_its_events_in_order():
    spy = Spy()
    small(spy).fit(2)
    assert spy.heard == [event for event, _ in whole_fit()]

def test_without_validation_data_there_are_no_validation_events():
    spy = Spy()
    learn = make(spy, dls=DataLoaders(loaders().train)).fit(1)
    assert not any('validate' in e for e in spy.heard)
    assert 'valid_loss' not in learn.recorder.values[0]

def test_a_fit_of_no_epochs_is_only_entered_and_left():
    spy = Spy()
    learn = make(spy)
    before = weights(learn)
    learn.fit(0)
    assert spy.heard == ['before_fit', 'after_fit']
    assert_equal(before, weights(learn))

def test_validate_and_get_preds_outside_a_fit_announce_what_the_docstring_says():
    spy = Spy()
    learn = small(spy)
    learn.validate()
    assert spy.heard == ['before_validate', *VALID, *VALID, 'after_validate']
    spy.heard.clear()
    learn.get_preds()
    assert [e for e in spy.heard if e != 'after_loss'] == spy.heard
    assert spy.heard[:1] + spy.heard[-1:] == ['before_validate', 'after_validate']

def test_a_method_given_to_a_class_between_fits_is_heard():
    class Late(Callback): pass
    late, heard = Late(), []
    learn = make(late)
    Late.after_fit = lambda self, learn: heard.append('after_fit')
    learn.fit(1)
    assert heard == ['after_fit']


# ---- cancelling

RUN = whole_fit()
FIRST = [i for i, (_, parts) in enumerate(RUN) if ('epoch', 1) not in parts and ('batch', 1) not in parts]
CASES = [(i, name) for i in FIRST for name, _ in RUN[i][1]]
IDS = [f'{name} at {RUN[i][0]} in {RUN[i][1][min(2, len(RUN[i][1]) - 1)][0]}' for i, name in CASES]

def expected(i, name):
    "The events of a fit in which, at event number `i`, the part `name` around it is cancelled."
    event, parts = RUN[i]
    names = [n for n, _ in parts]
    depth = names.index(name) + 1
    over = event.removeprefix('after_')   # a part whose after_ event this is does not get another one
    leaving = [f'after_{n}' for n in names[:depth-1:-1] if n != over]
    ending = [] if name == over else [f'after_cancel_{name}', f'after_{name}']
    rest = [e for e, p in RUN[i+1:] if p[:depth] != parts[:depth]]
    return [e for e, _ in RUN[:i+1]] + leaving + ending + rest

class Trip(Spy):
    "Raises `exc` once, at the first announcement of the event number `i` of RUN."
    def __init__(self, i, exc, order=-1000):
        self.heard, self.order, self.exc = [], order, exc
        (self.event, parts), names = RUN[i], [n for n, _ in RUN[i][1]]
        self.where = None if 'batch' not in names else 'train' in names
        for event in EVENTS: setattr(self, event, functools.partial(self.hear, event))
    def hear(self, event, learn):
        self.heard.append(event)
        if event == self.event and self.where in (None, learn.training) and self.exc:
            exc, self.exc = self.exc, None
            raise exc

@pytest.mark.parametrize('i,name', CASES, ids=IDS)
def test_cancelling_any_part_at_any_event_leaves_inner_parts_and_then_that_part(i, name):
    trip = Trip(i, CANCEL[name])
    Learner(net(), loaders(n=16, n_valid=8), F.cross_entropy, torch.optim.SGD, default_cbs=False, cbs=[trip]).fit(2)
    assert trip.heard == expected(i, name)

@pytest.mark.parametrize('order', [-999, 999])
@pytest.mark.parametrize('i,name', CASES, ids=IDS)
def test_no_callback_of_ours_stumbles_over_a_cancelled_part(i, name, order, tmp_path, monkeypatch):
    monkeypatch.setattr(learner, '_git_commit', lambda: None)
    trip = Trip(i, CANCEL[name], order)
    cbs = [GradientAccumulation(2), GradientClip(), TerminateOnNaN(), EarlyStopping(), CSVLogger(tmp_path/'h.csv'),
           Journal(tmp_path/'j'), Checkpoint(tmp_path, every=1), EMA(0.9)]
    learn = Learner(net(), loaders(n=16, n_valid=8), F.cross_entropy, metrics=[accuracy, rmse_of_classes], cbs=cbs)
    learn.fit(2, cbs=trip)
    assert len(learn.fit(1).recorder.values) == 1   # and it can go on

class rmse_of_classes(rmse):
    def update(self, pred, targ): super().update(pred.argmax(1), targ)

@pytest.mark.parametrize('order', [-999, 999])
@pytest.mark.parametrize('n_batches', [1, 2])
@pytest.mark.parametrize('event,exc', [('before_backward', CancelBackward), ('before_step', CancelStep)])
def test_no_callback_of_ours_stumbles_over_a_cancelled_backward_pass_or_step(event, exc, n_batches, order, tmp_path):
    trip, dls = At(event, throw(exc), order=order), loaders(n=8*n_batches)
    make(trip, GradientAccumulation(2), GradientClip(), Checkpoint(tmp_path, every=1), EMA(0.9), dls=dls).fit(2)

def test_a_cancelled_backward_pass_is_not_announced_as_done():
    spy = Spy()
    small(spy, At('before_backward', throw(CancelBackward))).fit(1)
    at = spy.heard.index('after_cancel_backward')
    assert spy.heard[at-1] == 'before_backward' and 'after_backward' not in spy.heard[:at+1]

def test_a_cancelled_step_is_not_announced_as_a_step():
    spy = Spy()
    small(spy, At('before_step', throw(CancelStep))).fit(1)
    at = spy.heard.index('after_cancel_step')
    assert spy.heard[at-1:at+2] == ['before_step', 'after_cancel_step', 'after_batch']
    assert spy.heard.count('after_step') == 1

@pytest.mark.parametrize('event,exc', [('after_step', CancelStep), ('after_backward', CancelBackward)])
def test_what_is_over_may_be_cancelled_without_harm(event, exc): small(At(event, throw(exc))).fit(1)

@pytest.mark.parametrize('how', ['CancelStep', 'step returns False'])
def test_a_step_that_is_not_made_keeps_its_gradients_for_the_next_batch(how):
    batches = [tuple(t[i:i+8] for t in samples(16).tensors) for i in (0, 8)]
    model, cb = net(), At('before_step', throw(CancelStep)) if how == 'CancelStep' else Callback()
    learn = make(cb, model=model, dls=DataLoaders(batches))
    if how != 'CancelStep':
        results = iter([False, True])
        def step():
            made = next(results)
            if made: learn.opt.step()
            return made
        learn.step = step
    learn.fit(1)
    bare = net()
    for xb, yb in batches: F.cross_entropy(bare(xb), yb).backward()
    torch.optim.SGD(bare.parameters(), lr=0.1).step()
    assert_equal(weights(learn), list(bare.parameters()))

@pytest.mark.parametrize('part', CANCEL)
def test_a_part_is_left_even_if_its_cancelling_cancels_the_fit(part):
    spy, event = Spy(), f'before_{part}'
    small(spy, At(event, throw(CANCEL[part])), At(f'after_cancel_{part}', throw(CancelFit))).fit(2)
    at = spy.heard.index(f'after_cancel_{part}')
    assert f'after_{part}' in spy.heard[at:]
    assert spy.heard.count('after_fit') == 1 and spy.heard.count('before_epoch') <= 1

@pytest.mark.parametrize('part', CANCEL)
def test_cancelling_a_part_again_while_it_is_cancelled_changes_nothing(part):
    spy, other = Spy(), Spy()
    small(spy, At(f'before_{part}', throw(CANCEL[part])), At(f'after_cancel_{part}', throw(CANCEL[part]))).fit(2)
    small(other, At(f'before_{part}', throw(CANCEL[part]))).fit(2)
    assert spy.heard == other.heard

@pytest.mark.parametrize('inner', ['batch', 'train', 'validate', 'epoch'])
def test_an_inner_cancel_on_the_way_out_does_not_hide_the_outer_one(inner):
    spy = Spy()
    small(spy, At(f'before_{inner}', throw(CancelFit)), At(f'after_{inner}', throw(CANCEL[inner]))).fit(2)
    assert spy.heard.count('before_epoch') == 1 and spy.heard[-2:] == ['after_cancel_fit', 'after_fit']

@pytest.mark.parametrize('first', ['before_train', 'after_train'])
def test_of_two_cancels_the_outer_one_counts(first):
    spy = Spy()
    small(spy, At(first, throw(CancelEpoch)), At('after_train', throw(CancelFit))).fit(2)
    assert spy.heard[-3:] == ['after_epoch', 'after_cancel_fit', 'after_fit'] and spy.heard.count('before_epoch') == 1

@pytest.mark.parametrize('part', ['batch', 'train', 'validate', 'epoch', 'fit'])
def test_every_callback_hears_that_a_part_is_over_even_if_one_cancels_then(part):
    class Early(Spy): order = 500
    early = Early()
    small(early, At(f'after_{part}', throw(CANCEL[part]))).fit(2)
    assert early.heard.count(f'after_{part}') == [e for e, _ in RUN].count(f'after_{part}')

def test_the_epoch_in_which_training_stops_early_is_logged_too(tmp_path, capsys):
    learn = make(Progress(), EarlyStopping(patience=1, min_delta=99), CSVLogger(tmp_path/'h.csv')).fit(5)
    assert len(learn.recorder.values) == 2
    assert len(list(csv.DictReader(open(tmp_path/'h.csv')))) == 2
    assert len(capsys.readouterr().out.splitlines()) == 3

def test_training_weights_are_back_when_validation_was_cancelled_at_its_end():
    plain = make(EMA(0.5)).fit(2)
    tripped = make(EMA(0.5), At('after_validate', throw(CancelValidate))).fit(2)
    assert_equal(weights(plain), weights(tripped))

def test_contexts_are_entered_around_each_forward_and_always_left():
    log = []
    @contextmanager
    def ctx():
        log.append('in')
        try: yield
        finally: log.append('out')
    learn = small()
    learn.contexts.append(ctx)
    learn.fit(1)
    learn.get_preds()
    assert log == ['in', 'out'] * 6
    small_again = small(At('after_pred', throw(CancelBatch)), At('after_loss', throw(ValueError('x'))))
    small_again.contexts.append(ctx)
    with pytest.raises(ValueError): small_again.fit(1)
    assert log == ['in', 'out'] * 8


# ---- errors

class Faulty(Callback):
    def __init__(self, error): self.error = error
    def after_loss(self, learn):
        if (learn.epoch, learn.iter, learn.training) == (1, 2, True): raise self.error

class Strange(Exception): pass

def test_an_error_keeps_its_type_and_says_which_callback_event_epoch_and_batch():
    with pytest.raises(Strange) as e: make(Faulty(Strange('x'))).fit(2)
    assert type(e.value) is Strange and str(e.value) == 'x'
    assert all(s in notes(e) for s in ('Faulty', 'after_loss', 'training', 'epoch 1', 'batch 2'))

def test_an_error_of_the_model_says_in_which_batch_of_validation_it_happened():
    class Odd(nn.Linear):
        def forward(self, xb): return super().forward(xb) if self.training or len(xb) == 4 else 1/0
    with pytest.raises(ZeroDivisionError) as e: make(model=Odd(4, 3)).fit(1)
    assert 'validation, epoch 0, batch 2' in notes(e)

def test_an_error_in_before_fit_is_not_said_to_be_in_validation():
    class Unready(Callback):
        def before_fit(self, learn): raise Strange
    with pytest.raises(Strange) as e: make(Unready()).fit(1)
    assert 'Unready' in notes(e) and 'before_fit' in notes(e) and 'validation' not in notes(e)

def test_ctrl_c_says_where_it_happened():
    with pytest.raises(KeyboardInterrupt) as e: make(Faulty(KeyboardInterrupt())).fit(2)
    assert 'epoch 1, batch 2' in notes(e)

@pytest.mark.parametrize('exc', [Strange('x'), KeyboardInterrupt()], ids=['error', 'ctrl-c'])
def test_after_fit_runs_once_for_every_callback_and_the_learner_goes_on(exc):
    class Late(Spy): order = 1000
    spies, faulty = (Spy(), Late()), Faulty(exc)
    learn = make(*spies, faulty)
    with pytest.raises(type(exc)): learn.fit(2)
    for spy in spies: assert spy.heard[-1] == 'after_fit' and spy.heard.count('after_fit') == 1
    assert not learn.fitting and learn.xb is learn.pred is learn.loss is None
    learn.remove_cb(faulty)
    assert len(learn.fit(2).recorder.values) == 2

@pytest.mark.parametrize('exc', [Strange('x'), KeyboardInterrupt()], ids=['error', 'ctrl-c'])
def test_a_failing_after_fit_does_not_keep_others_from_theirs(exc):
    class Late(Spy): order = 1000
    spy, bad = Late(), At('after_fit', throw(exc))
    learn = make(spy, bad)
    with pytest.raises(type(exc)): learn.fit(1)
    assert spy.heard[-1] == 'after_fit'
    learn.fit(1)

def test_a_failing_after_fit_is_noticed_inside_an_except_block_too():
    learn = make(At('after_fit', throw(Strange)))
    with pytest.raises(Strange):
        try: raise ValueError
        except ValueError: learn.fit(1)

def test_the_first_error_is_the_one_that_is_raised():
    with pytest.raises(Strange): make(Faulty(Strange()), At('after_fit', throw(ValueError))).fit(2)

@pytest.mark.parametrize('exc', [None, Strange('x'), KeyboardInterrupt(), CancelFit()], ids=str)
def test_callbacks_given_to_fit_are_gone_afterwards(exc):
    learn = make()
    before = list(learn.cbs)
    try: learn.fit(2, cbs=[Spy(), *([Faulty(exc)] if exc else [])])
    except (Strange, KeyboardInterrupt): pass
    assert learn.cbs == before

def test_callbacks_given_to_fit_are_gone_when_one_of_them_is_refused():
    learn = make()
    before = list(learn.cbs)
    with pytest.raises(ValueError, match='Recorder'): learn.fit(1, cbs=[Spy(), Recorder()])
    assert learn.cbs == before

def test_a_callback_serves_one_learner_at_a_time():
    spy = Spy()
    learn = make(spy)
    with pytest.raises(ValueError, match='another learner'): make(spy)
    with pytest.raises(ValueError, match='already'): learn.add_cb(spy)
    learn.remove_cb(spy)
    make(spy)

def test_a_copied_learner_owns_the_copies_of_the_callbacks():
    twin = copy.deepcopy(make(Spy()))
    with pytest.raises(ValueError, match='another learner'): make(twin.cb(Spy))

def test_a_single_callback_needs_no_list():
    spy = Spy()
    learn = Learner(net(), loaders(), F.cross_entropy, torch.optim.SGD, cbs=Recorder(), default_cbs=False)
    learn.fit(1, cbs=spy)
    learn.validate(cbs=spy)
    learn.get_preds(cbs=spy)
    assert spy.heard.count('before_validate') == 3

def test_a_unique_callback_is_refused_twice():
    with pytest.raises(ValueError, match='EMA'): make(EMA(), EMA())
    with pytest.raises(ValueError, match='Recorder'): make(Recorder())

def test_a_callback_of_ones_own_kind_takes_the_place_of_the_default():
    class MyRecorder(Recorder): pass
    learn = Learner(net(), loaders(), F.cross_entropy, cbs=[MyRecorder(), ToDevice('cpu')])
    assert [type(c) for c in learn.cbs if isinstance(c, Recorder)] == [MyRecorder]
    assert sum(isinstance(c, ToDevice) for c in learn.cbs) == 1

@pytest.mark.parametrize('name,meant', [('after_bacth', 'after_batch'), ('begin_fit', 'before_fit'),
                                        ('before_training', 'before_train'), ('on_epoch_end', 'epoch')])
def test_a_misspelt_event_fails_when_the_class_is_made(name, meant):
    with pytest.raises(TypeError, match=meant): type('Mine', (Callback,), {name: lambda self, learn: None})

@pytest.mark.parametrize('method', [lambda self: None, lambda: None, lambda self, learn, more: None])
def test_a_method_that_does_not_take_the_learner_fails_when_the_class_is_made(method):
    with pytest.raises(TypeError, match=r'Mine\.after_step .* def after_step\(self, learn\)'):
        type('Mine', (Callback,), dict(after_step=method))

@pytest.mark.parametrize('method', [lambda self, learn, more=1: None, lambda *args: None, functools.partial(print)])
def test_a_method_that_can_take_the_learner_is_one(method): type('Mine', (Callback,), dict(after_step=method))

def test_a_learner_shows_its_parts():
    learn = make(loss_func=nn.CrossEntropyLoss())
    assert repr(learn) == 'Learner(Sequential, DataLoaders(train: 3 batches, valid: 3 batches), CrossEntropyLoss, SGD)'
    assert repr(Learner(nn.Linear(1, 1))) == 'Learner(Linear, None, None, AdamW)'

def test_an_error_in_predict_says_what_the_model_was_given():
    with pytest.raises(RuntimeError) as error: make().predict(torch.randn(5))
    assert 'batch of one, shape (1, 5)' in notes(error)

def test_a_fit_inside_a_fit_is_refused():
    again = At('after_step', lambda learn: learn.fit(1))
    with pytest.raises(RuntimeError, match='in a fit already'): make(again).fit(1)

def out_of_range(n=20): return get_dls(TensorDataset(torch.randn(n, 4), torch.arange(n) % 5), bs=n)

@pytest.mark.parametrize('loss_func', [F.cross_entropy, nn.CrossEntropyLoss(), nn.NLLLoss(),
                                       functools.partial(F.cross_entropy, label_smoothing=0.1)],
                         ids=['function', 'module', 'nll', 'partial'])
def test_a_target_out_of_range_is_a_sentence(loss_func):
    with pytest.raises(ValueError, match='[34].*3 outputs'):
        make(SanityCheck(), dls=out_of_range(), loss_func=loss_func).fit(1)

def test_targets_to_be_ignored_are_in_range():
    x, y = samples(8).tensors
    y[0] = -100
    make(SanityCheck(), dls=get_dls(TensorDataset(x, y), bs=8)).fit(1)

@pytest.mark.parametrize('loss_func', [F.mse_loss, nn.L1Loss()], ids=['function', 'module'])
def test_shapes_that_would_broadcast_are_a_sentence(loss_func):
    dls = get_dls(TensorDataset(torch.randn(8, 4), torch.randn(8)), bs=8)
    with pytest.raises(ValueError, match='broadcast'):
        make(SanityCheck(), model=nn.Linear(4, 1), dls=dls, loss_func=loss_func).fit(1)

def test_float_targets_for_cross_entropy_are_a_sentence():
    dls = get_dls(TensorDataset(torch.randn(8, 4), torch.ones(8)), bs=8)
    with pytest.raises(ValueError, match='long'): make(SanityCheck(), dls=dls).fit(1)

def test_an_empty_loader_is_a_sentence():
    with pytest.raises(ValueError, match='no batches'): make(dls=DataLoaders([])).fit(1)
    with pytest.raises(ValueError, match='no batches'): make(dls=DataLoaders(loaders().train, [])).fit(1)

def test_a_generator_that_is_used_up_is_a_sentence():
    with pytest.raises(ValueError, match='used up'): make(dls=DataLoaders(iter(list(loaders().train)))).fit(2)

def test_a_batch_of_one_sample_trains():
    learn = make(dls=loaders(n=9, n_valid=5), metrics=[accuracy, top_k(2)]).fit(1)
    assert len(learn.recorder.losses) == 2 and 0 <= learn.recorder.values[0]['accuracy'] <= 1

@pytest.mark.parametrize('use', ['fit', 'validate', 'get_preds', 'show_results'])
@pytest.mark.parametrize('dls', [None, DataLoaders(None)], ids=['no loaders', 'empty loaders'])
def test_missing_data_is_a_sentence(use, dls):
    with pytest.raises((ValueError, AttributeError), match='(?i)loader') as e:
        getattr(Learner(net(), dls, F.cross_entropy, default_cbs=False), use)(*([1] if use == 'fit' else []))
    assert 'NoneType' not in str(e.value)

def test_a_missing_loss_function_is_a_sentence():
    with pytest.raises((ValueError, TypeError), match='loss_func'): Learner(net(), loaders(), default_cbs=False).fit(1)

@pytest.mark.parametrize('n', [None, -1, 1.5, 'two'])
def test_a_wrong_number_of_epochs_is_a_sentence(n):
    with pytest.raises(ValueError, match='n_epochs'): make().fit(n)


# ---- what is averaged

class Median:
    "A streaming metric as torchmetrics has them."
    def __init__(self): self.reset()
    def reset(self): self.kept = []
    def update(self, preds, target): self.kept.append(preds.max(1).values)
    def compute(self): return torch.cat(self.kept).median()

@pytest.mark.parametrize('bs', [1, 3, 7, 10])
def test_loss_and_metrics_are_means_over_samples_whatever_the_batch_size(bs):
    learn = make(metrics=[accuracy, error_rate, top_k(2), Median()])
    x, y = samples(10, seed=1).tensors
    res = learn.validate(get_dls(samples(10, seed=1), samples(10, seed=1), bs=bs, valid_bs=bs).valid)
    logits = learn.model.eval()(x).detach()
    top_2 = (logits.topk(2).indices == y[:, None]).any(1).float().mean()
    want = dict(loss=F.cross_entropy(logits, y), accuracy=accuracy(logits, y), error_rate=1 - accuracy(logits, y),
                top_2=top_2, median=logits.max(1).values.median())
    assert res == pytest.approx({k: v.item() for k, v in want.items()}, abs=1e-6)

def test_training_loss_and_training_metrics_are_weighted_by_samples():
    seen = []
    class Keep(Callback):
        def after_loss(self, learn):
            if learn.training: seen.append((len(learn.yb), learn.loss.item(), accuracy(learn.pred, learn.yb).item()))
    row = make(Keep(), metrics=accuracy, train_metrics=True, dls=loaders(n=19)).fit(1).recorder.values[0]
    n = sum(n for n, *_ in seen)
    assert [n for n, *_ in seen] == [8, 8, 3]
    assert row['train_loss'] == pytest.approx(sum(n * l for n, l, _ in seen) / n)
    assert row['train_accuracy'] == pytest.approx(sum(n * a for n, _, a in seen) / n)
    assert 'accuracy' in row

def test_a_root_is_taken_once_and_perplexity_is_the_exponential_of_the_mean():
    x, y = torch.randn(10, 4), torch.randn(10, 2)
    dls = get_dls(TensorDataset(x, y), TensorDataset(x, y), valid_bs=4)
    learn = make(model=nn.Linear(4, 2), loss_func=F.mse_loss, metrics=rmse, dls=dls)
    assert learn.validate()['rmse'] == pytest.approx(F.mse_loss(learn.model(x), y).sqrt().item(), rel=1e-5)
    res = make(metrics=[Perplexity()]).validate()
    assert res['perplexity'] == pytest.approx(math.exp(res['loss']), rel=1e-5)

def test_a_language_model_is_weighted_by_tokens():
    torch.manual_seed(0)
    batches = [(torch.randint(0, 5, (n, seq)),) * 2 for n, seq in ((4, 6), (4, 3), (1, 2))]
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))   # (bs, seq) -> (bs, seq, 5)
    flat = lambda pred, targ: F.cross_entropy(pred.flatten(0, 1), targ.flatten())
    dls = DataLoaders(batches, batches)
    res = make(model=model, loss_func=flat, dls=dls, metrics=[accuracy, Perplexity()]).validate()
    tokens = torch.cat([xb.flatten() for xb, _ in batches])
    assert res['loss'] == pytest.approx(F.cross_entropy(model(tokens), tokens).item(), rel=1e-5)
    assert res['accuracy'] == pytest.approx(accuracy(model(tokens), tokens).item(), rel=1e-5)
    assert res['perplexity'] == pytest.approx(math.exp(res['loss']), rel=1e-4)

def test_metrics_start_anew_in_each_epoch():
    learn = make(metrics=[Median()], lr=0.).fit(2)
    first, second = learn.recorder.values
    assert first['median'] == second['median'] == pytest.approx(learn.validate()['median'])

def test_a_metric_that_fails_is_named():
    def odd(pred, targ): raise Strange
    with pytest.raises(Strange) as e: make(metrics=odd).fit(1)
    assert 'odd' in notes(e)

def test_a_metric_that_is_none_is_refused():
    with pytest.raises(TypeError, match='metric'): make(metrics=[3])


# ---- the same numbers as plain PyTorch

OPTS = [functools.partial(torch.optim.SGD, momentum=0.9), torch.optim.AdamW]

@pytest.mark.parametrize('opt_func', OPTS, ids=['sgd', 'adamw'])
def test_weights_and_losses_equal_those_of_a_bare_loop_to_the_last_bit(opt_func):
    bare, dls, losses = net(0.5), loaders(), []
    opt = opt_func(bare.parameters(), lr=0.1)
    torch.manual_seed(3)
    for epoch in range(3):
        bare.train()
        dls.set_epoch(epoch)
        for xb, yb in dls.train:
            loss = F.cross_entropy(bare(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
            losses.append(loss.item())
    learn = make(model=net(0.5), opt_func=opt_func, metrics=accuracy)
    torch.manual_seed(3)
    learn.fit(3)
    assert_equal(weights(learn), list(bare.parameters()))
    assert learn.recorder.losses == losses

def test_the_default_callbacks_change_no_bit(capsys):
    with_all = Learner(net(0.5), loaders(), F.cross_entropy, torch.optim.SGD, lr=0.1, metrics=accuracy, device='cpu')
    plain = make(model=net(0.5))
    for learn in with_all, plain:
        torch.manual_seed(3)
        learn.fit(2)
    assert_equal(weights(with_all), weights(plain))

def test_changing_loss_grad_changes_the_gradient_and_not_the_record():
    class Penalty(Callback):
        def after_loss(self, learn): learn.loss_grad = learn.loss_grad + learn.model[0].weight.square().sum()
    plain, penalized = make().fit(1), make(Penalty()).fit(1)
    assert plain.recorder.losses[0] == penalized.recorder.losses[0]
    assert not torch.equal(plain.model[0].weight, penalized.model[0].weight)


# ---- batches of all shapes

class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)
    def forward(self, a, b): return self.a(a) + self.b(b)

ARRANGED = dict(pair=lambda a, b, y: ((a, b), y), flat=lambda a, b, y: (a, b, y), lists=lambda a, b, y: [[a, b], y],
                named=lambda a, b, y: ({'b': b, 'a': a}, y))

@pytest.mark.parametrize('kind', ARRANGED)
def test_a_model_with_two_inputs_gets_them_and_metrics_and_predictions_work(kind):
    torch.manual_seed(0)
    batches = [ARRANGED[kind](torch.randn(n, 4), torch.randn(n, 4), torch.randint(0, 3, (n,))) for n in (4, 4, 1)]
    dls = DataLoaders(batches, batches)
    learn = make(ToDevice('cpu'), SanityCheck(), model=TwoInputs(), dls=dls, metrics=accuracy).fit(2)
    assert learn.recorder.losses[-1] != learn.recorder.losses[2]
    preds, targs = learn.get_preds()
    assert preds.shape == (9, 3) and targs.shape == (9,)
    assert learn.validate()['accuracy'] == pytest.approx(accuracy(preds, targs).item())

def test_predict_takes_an_item_of_any_shape():
    learn, a, b = make(model=TwoInputs()), torch.randn(4), torch.randn(4)
    want = learn.model(a, b)
    assert_close([learn.predict((a, b))], [want])
    assert_close([learn.predict({'a': a, 'b': b})], [want])

@pytest.mark.parametrize('wrap', [lambda x: x, lambda x: (x,), lambda x: (x, None)], ids=['tensor', 'tuple', 'None'])
def test_a_batch_without_target_trains(wrap):
    batches = [wrap(torch.rand(n, 4)) for n in (4, 2)]
    dls, loss_func = DataLoaders(batches, batches), lambda pred: pred.square().mean()
    learn = make(model=nn.Linear(4, 4), dls=dls, loss_func=loss_func).fit(2)
    assert learn.recorder.values[1]['valid_loss'] < learn.recorder.values[0]['valid_loss']
    preds, targs, losses = learn.get_preds(with_loss=True)
    assert targs is None and preds.shape == (6, 4) and losses.shape == (6,)

def with_parts(pred, targ): return F.cross_entropy(pred, targ), pred.abs().mean(), 'more'

def test_a_loss_may_return_more_than_the_loss():
    seen = []
    learn = make(At('after_loss', lambda learn: seen.extend(learn.extra)), loss_func=with_parts).fit(1)
    assert len(seen) == 2 and seen[1] == 'more'
    assert_equal(weights(learn), weights(make().fit(1)))
    assert learn.validate()['loss'] == pytest.approx(learn.get_preds(with_loss=True)[2].mean().item())


# ---- predictions

class Numbers(Dataset):
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return torch.full((4,), float(i)), i

class Stream(IterableDataset):
    def __iter__(self): return ((torch.full((4,), float(i)), i) for i in range(11))

LOADERS = dict(
    whole=lambda: get_dls(TensorDataset(torch.arange(11.)[:, None].expand(11, 4), torch.arange(11)), bs=4).train,
    items=lambda: get_dls(Numbers(11), bs=4).train,
    plain=lambda: DataLoader(Numbers(11), batch_size=4, shuffle=True),
    drop_last=lambda: DataLoader(Numbers(11), batch_size=4, shuffle=True, drop_last=True),
    ready_made=lambda: DataLoader([(torch.full((1, 4), float(i)), torch.tensor([i])) for i in range(11)],
                                  batch_size=None, shuffle=True),
    stream=lambda: DataLoader(Stream(), batch_size=4))

@pytest.mark.parametrize('kind', LOADERS)
def test_predictions_come_in_the_order_of_the_data_set(kind):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    preds, targs = make(model=model).get_preds(LOADERS[kind]())
    assert targs.tolist() == list(range(11))
    assert_close([preds], [model(targs[:, None].expand(11, 4).float())])

def test_predictions_cover_the_items_of_the_loader_and_no_others():
    dl = DataLoader(Numbers(11), batch_size=4, sampler=SubsetRandomSampler([9, 2, 5]))
    assert sorted(make(model=nn.Linear(4, 1)).get_preds(dl)[1].tolist()) == [2, 5, 9]

@pytest.mark.parametrize('loss_func', [F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.1),
                                       lambda p, t: F.cross_entropy(p, t)], ids=['function', 'module', 'lambda'])
def test_get_preds_gives_each_samples_loss(loss_func):
    learn = make(loss_func=loss_func)
    preds, targs, losses = learn.get_preds(learn.dls.train, with_loss=True)
    assert losses.shape == (20,)
    assert_close([losses.mean()], [loss_func(preds, targs)])

def test_act_is_applied_to_predictions_and_not_to_losses():
    learn = make()
    logits, _, losses = learn.get_preds(with_loss=True)
    probs, _, same = learn.get_preds(act=lambda p: p.softmax(1), with_loss=True)
    assert_close([probs], [logits.softmax(1)])
    assert_close([losses], [same])

def test_predicting_leaves_the_models_mode_and_the_generators_alone():
    learn = make(model=net(0.5))
    learn.model.train()
    state = torch.get_rng_state()
    learn.get_preds(DataLoader(Numbers(8), batch_size=4, shuffle=True))
    learn.validate()
    assert learn.model.training and torch.equal(state, torch.get_rng_state())

LOOKS = dict(validate=lambda learn: learn.validate(), get_preds=lambda learn: learn.get_preds(),
             another_loader=lambda learn: learn.validate(get_dls(samples(6), samples(6)).valid))

@pytest.mark.parametrize('event,nth', [
    ('after_batch', 1), ('after_train', 0), ('before_step', 2), ('after_validate', 0), ('after_epoch', 0)])
@pytest.mark.parametrize('look', LOOKS)
def test_looking_from_within_a_fit_does_not_disturb_it(event, nth, look):
    def run(*cbs):
        learn = make(*cbs, model=net(0.5), metrics=[accuracy, Median()], train_metrics=True, opt_func=torch.optim.AdamW)
        for cb in EMA(0.5), GradientAccumulation(2), TerminateOnNaN(1), SanityCheck(): learn.add_cb(cb)
        torch.manual_seed(3)
        return learn.fit(2)
    class Look(Callback):   # once, and not when it is called by its own look
        done = -1
        def __init__(self): setattr(self, event, self.see)
        def see(self, learn):
            if learn.training == (event != 'after_validate') or event == 'after_epoch': self.done += 1
            if self.done == nth:
                self.done += 1
                LOOKS[look](learn)
    plain, looked = run(), run(Look())
    assert_equal(weights(plain), weights(looked))
    assert plain.recorder.losses == looked.recorder.losses
    rows = [[{k: v for k, v in row.items() if k != 'time'} for row in l.recorder.values] for l in (plain, looked)]
    assert rows[0] == rows[1]

def test_validating_from_within_a_fit_says_the_same_as_outside():
    seen = {}
    learn = make(At('after_fit', lambda learn: seen.update(learn.validate())), metrics=[accuracy, Median()]).fit(1)
    assert seen == learn.validate()


# ---- callbacks

def batches_of(sizes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 4, generator=g, dtype=torch.double), torch.randint(0, 3, (n,), generator=g)) for n in sizes]

def joined(batches): return tuple(torch.cat(ts) for ts in zip(*batches))

@pytest.mark.parametrize('clip', [False, True], ids=['', 'clipped'])
@pytest.mark.parametrize('opt_func', OPTS, ids=['momentum', 'adamw'])
@pytest.mark.parametrize('sizes,windows', [((8, 8, 8, 8), (2, 2)), ((8, 3, 5, 8), (2, 2)), ((8, 8, 8, 2, 1), (2, 2, 1)),
                                           ((4,), (1,))], ids=str)
def test_accumulated_gradients_are_those_of_the_big_batch(sizes, windows, opt_func, clip):
    one_by_one, rest = batches_of(sizes), iter(batches_of(sizes))
    big = [joined([next(rest) for _ in range(n)]) for n in windows]
    clips = lambda: [GradientClip(0.05)] if clip else []
    def train(batches, *cbs):
        return make(*cbs, *clips(), model=net().double(), dls=DataLoaders(batches), opt_func=opt_func).fit(3)
    a, b = train(one_by_one, GradientAccumulation(2)), train(big)
    torch.testing.assert_close(weights(a), weights(b), rtol=1e-6, atol=1e-8)   # AdamW divides by gradients near zero

class NoLength:
    def __init__(self, batches): self.batches = batches
    def __iter__(self): return iter(self.batches)

def test_a_window_that_a_loader_without_length_cuts_is_finished_in_the_next_epoch():
    batches = batches_of((8, 4, 2))
    a = make(GradientAccumulation(2), model=net().double(), dls=DataLoaders(NoLength(batches))).fit(2)
    big = [joined(batches[:2]), joined([batches[2], batches[0]]), joined(batches[1:])]
    b = make(model=net().double(), dls=DataLoaders(big)).fit(1)
    assert_close(weights(a), weights(b))

def test_clipping_is_torchs():
    norms = []
    bare, dls = net(), loaders()
    opt = torch.optim.SGD(bare.parameters(), lr=0.1)
    for xb, yb in dls.train:
        F.cross_entropy(bare(xb), yb).backward()
        norms.append(nn.utils.clip_grad_norm_(bare.parameters(), 0.1))
        opt.step()
        opt.zero_grad()
    clip = GradientClip(0.1)
    learn = make(clip).fit(1)
    assert_equal(weights(learn), list(bare.parameters()))
    assert clip.norm == norms[-1]

def test_ema_is_torchs_averaged_model_in_validation_and_at_the_end():
    class Twin(Callback):
        def before_fit(self, learn):
            self.avg = AveragedModel(learn.model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
            self.avg.update_parameters(learn.model)   # the first one copies
        def after_step(self, learn): self.avg.update_parameters(learn.model)
        def after_validate(self, learn): assert_close(learn.model.parameters(), self.avg.module.parameters())
    twin = Twin()
    learn = make(EMA(0.8), twin).fit(2)
    assert_close(learn.model.parameters(), twin.avg.module.parameters())
    assert not torch.equal(learn.model[0].weight, make().fit(2).model[0].weight)

def test_ema_trains_what_is_trained_without_it():
    losses = lambda *cbs: make(*cbs, opt_func=torch.optim.AdamW).fit(3).recorder.losses
    assert losses(EMA(0.9)) == losses()

def test_ema_leaves_the_averages_when_the_fit_fails():
    ema, faulty = EMA(0.5), Faulty(Strange())
    learn = make(ema, faulty)
    with pytest.raises(Strange): learn.fit(2)
    want = make(EMA(0.5), At('after_loss', throw(CancelFit), nth=6+2)).fit(2)   # the same place, after 3 + 3 + 2 losses
    assert_equal(weights(learn), weights(want))

@pytest.mark.parametrize('event', ['before_fit', None])
def test_ema_leaves_the_model_alone_when_a_second_fit_does_not_begin(event):
    learn = make(EMA(0.5)).fit(1)
    before = weights(learn)
    if event: learn.fit(1, cbs=At(event, throw(CancelFit)))
    else:
        with pytest.raises(ValueError, match='values of lr'): learn.fit(1, lr=[1, 2, 3])
    assert_equal(before, weights(learn))

def test_validating_within_a_fit_uses_the_averages_too():
    seen = []
    class Look(Callback):
        order = 50
        def after_validate(self, learn):
            if learn.fitting: seen.append(learn.recorder.row['valid_loss'].item())
        def after_epoch(self, learn): seen.append(learn.validate()['loss'])
    make(EMA(0.5), Look()).fit(2)
    assert seen[0] == seen[1] and seen[2] == seen[3]

def nan_at(epoch, i):
    def spoil(learn):
        if learn.training and (learn.epoch, learn.iter) == (epoch, i): learn.xb = learn.xb * math.nan
    cb = Callback()
    cb.before_batch = spoil
    return cb

@pytest.mark.parametrize('every', [1, 2, 10])
def test_a_loss_that_is_not_a_number_ends_the_fit_and_names_the_batch(every):
    nan = TerminateOnNaN(every)
    with pytest.warns(UserWarning, match='epoch 1, batch 1'): learn = make(nan, nan_at(1, 1)).fit(4)
    assert nan.found == (1, 1) and len(learn.recorder.values) == 2

def test_a_nan_ends_the_fit_quietly_where_others_watch_the_validation_loss(tmp_path):
    with pytest.warns(UserWarning, match='not finite'):
        make(TerminateOnNaN(1), EarlyStopping(), Checkpoint(tmp_path), nan_at(1, 1)).fit(4)

class Said:
    "A metric whose values are known beforehand."
    name = 'said'
    def __init__(self, *values): self.values = iter(values)
    def reset(self): pass
    def update(self, pred, targ): pass
    def compute(self): return next(self.values)

nan = math.nan
@pytest.mark.parametrize('mode,values,n', [
    ('min', (3, 2, 2, 2, 1), 4), ('max', (3, 2, 2, 2, 1), 3), ('min', (5, 4, 3, 2, 1), 5),
    ('max', (1, 2, nan, nan, 3), 4), ('min', (nan, nan, 1, 1, 1), 2), ('min', (2, nan, 1, nan, 0), 5)], ids=str)
def test_training_stops_after_two_epochs_without_a_better_value(mode, values, n):
    learn = make(EarlyStopping('said', patience=2, mode=mode), metrics=[Said(*values)]).fit(5)
    assert len(learn.recorder.rows) == n

def test_what_counts_as_better_follows_from_the_name_or_is_said():
    for name in 'valid_loss', 'error_rate', 'rmse', 'perplexity': assert EarlyStopping(name).mode == 'min'
    assert EarlyStopping('accuracy').mode == 'max'
    with pytest.raises(ValueError, match='mode'): EarlyStopping(mode='less')

def test_a_watched_value_that_does_not_exist_is_a_sentence():
    with pytest.raises(KeyError, match='acuracy.*valid_loss'): make(EarlyStopping('acuracy')).fit(1)

def test_stopping_early_starts_anew_in_each_fit():
    stop = EarlyStopping('said', patience=1, mode='min')
    learn = make(stop, metrics=[Said(1, 2, 5, 4, 3)])
    assert len(learn.fit(3).recorder.rows) == 2 and len(learn.fit(3).recorder.rows) == 3


# ---- records

def test_the_recorder_keeps_losses_rates_momenta_and_epochs():
    rec = make(opt_func=OPTS[0], metrics=accuracy).fit(2).recorder
    assert len(rec.losses) == len(rec.smooth_losses()) == len(rec.lrs) == len(rec.moms) == 6
    assert rec.lrs[0] == [0.1] and rec.moms[0] == 0.9
    assert [list(v) for v in rec.values] == [['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time']] * 2
    assert rec.smooth_losses()[0] == pytest.approx(rec.losses[0])
    for plot in rec.plot_loss, rec.plot_lr, rec.plot_metrics: assert plot().get_xlabel()

def test_a_csv_file_is_written_epoch_by_epoch_and_can_be_appended(tmp_path):
    learn = make(CSVLogger(tmp_path/'runs'/'h.csv', append=True), metrics=accuracy).fit(2)
    learn.fit(1)
    rows = list(csv.DictReader(open(tmp_path/'runs'/'h.csv')))
    assert [r['epoch'] for r in rows] == ['0', '1', '0']
    assert float(rows[2]['accuracy']) == learn.recorder.values[0]['accuracy']

def test_an_epoch_without_validation_does_not_shift_the_columns(tmp_path, capsys):
    skip = At('before_validate', throw(CancelEpoch), nth=1)
    learn = make(skip, Progress(), CSVLogger(tmp_path/'h.csv'), metrics=accuracy).fit(3)
    learn.recorder.to_csv(tmp_path/'r.csv')
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for name in 'h.csv', 'r.csv':
        rows = list(csv.DictReader(open(tmp_path/name)))
        assert float(rows[1]['time']) == learn.recorder.values[1]['time'] and None not in rows[1]
    assert lines[0][-1] == 'time' and len(lines) == 4

def test_the_journal_keeps_one_line_for_each_fit_also_a_failed_one(tmp_path):
    learn = make(Journal(tmp_path/'j.jsonl', note='first'), metrics=accuracy).fit(1)
    with pytest.raises(Strange): learn.fit(2, cbs=Faulty(Strange()))
    first, second = read_journal(tmp_path/'j.jsonl')
    assert first['note'] == 'first' and first['finished'] and 0 <= first['result']['accuracy'] <= 1
    assert first['opt'] == 'SGD' and first['groups'][0]['lr'] == 0.1 and first['n_params'] == 67
    assert not second['finished'] and second['epochs'] == 1

def test_a_journal_with_half_a_line_gives_the_whole_ones_and_names_the_other(tmp_path):
    path = tmp_path/'j.jsonl'
    for note in 'first', 'second': make(Journal(path, note=note)).fit(1)
    whole = path.read_bytes()
    second = whole.index(b'\n') + 1
    for cut in [*range(second + 1, len(whole) - 1, 17), len(whole) - 2]:
        path.write_bytes(whole[:cut])
        with pytest.warns(UserWarning, match=r'j\.jsonl, line 2: no whole entry'): entries = read_journal(path)
        assert [e['note'] for e in entries] == ['first']
    make(Journal(path, note='third')).fit(1)   # does not go on in the half line
    with pytest.warns(UserWarning, match='line 2:'): entries = read_journal(path)
    assert [e['note'] for e in entries] == ['first', 'third']
    for end in b'', b'\n':                     # whole, and the line break may be missing
        path.write_bytes(whole[:-1] + end)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert [e['note'] for e in read_journal(path)] == ['first', 'second']

def test_tensorboard_files_are_written(tmp_path):
    pytest.importorskip('tensorboard')
    make(TensorBoardLogger(tmp_path, every=1)).fit(1)
    assert list(tmp_path.glob('events*'))

def test_without_tensorboard_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    with pytest.raises(ImportError, match='pip install tensorboard'): make(TensorBoardLogger()).fit(1)

def with_bar(): return Learner(net(), loaders(), F.cross_entropy, torch.optim.SGD, metrics=accuracy, device='cpu')

def test_in_a_file_progress_is_a_table_with_one_header(capsys):
    with_bar().fit(3)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'time']
    assert [line[0] for line in lines[1:]] == ['0', '1', '2'] and all(len(line) == 5 for line in lines)

def test_without_bar_nothing_is_printed_and_the_bar_comes_back(capsys):
    learn = with_bar()
    with learn.no_bar(): learn.fit(1)
    assert capsys.readouterr().out == ''
    learn.fit(1)
    assert 'valid_loss' in capsys.readouterr().out

def in_terminal(code):
    "What `code` writes when its output is a terminal, and its exit status."
    ours, theirs = pty.openpty()
    env = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path), 'COLUMNS': '100'}
    run = subprocess.Popen([sys.executable, '-c', code], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    out = b''
    while True:
        try: chunk = os.read(ours, 65536)
        except OSError: break   # Linux says EIO when the other side is closed
        if not chunk: break
        out += chunk
    os.close(ours)
    return out.decode(), run.wait()

IN_TERMINAL = """
import copy, torch, torch.nn.functional as F
from minidl.learner import Learner
batches = [(torch.randn(8, 4), torch.arange(8) % 3)] * 3
learn = Learner(torch.nn.Linear(4, 3), (batches, batches), F.cross_entropy, device='cpu').fit(2)
print('SILENT')
with learn.no_bar(): learn.fit(1)
print('COPY')
copy.deepcopy(learn)
print('END')
"""

def test_in_a_terminal_there_are_bars_and_the_table_and_the_learner_can_be_copied_afterwards():
    out, status = in_terminal(IN_TERMINAL)
    bars, rest = out.split('SILENT')
    assert '%' in bars and '█' in bars and bars.count('train_loss') == 1
    assert rest.split('COPY')[0].strip() == ''
    assert status == 0 and 'END' in rest, out


# ---- copies, groups, hyperparameters

def test_a_copy_trains_by_itself():
    learn = make(EMA(0.9), model=net(0.5), opt_func=torch.optim.AdamW, metrics=[accuracy, Median()]).fit(1)
    twin, before = copy.deepcopy(learn), weights(learn)
    torch.manual_seed(3)
    twin.fit(1)
    assert_equal(before, weights(learn))
    assert twin.opt.param_groups[0]['params'][0] is next(twin.model.parameters())
    torch.manual_seed(3)
    learn.fit(1)
    assert_equal(weights(learn), weights(twin))

def halves(model): return [model[:2], model[2:]]

def test_a_splitter_makes_groups_with_rates_of_their_own():
    learn = make(splitter=halves, lr=[0., 0.1])
    first, last = learn.model[0].weight.clone(), learn.model[3].weight.clone()
    learn.fit(1)
    assert torch.equal(first, learn.model[0].weight) and not torch.equal(last, learn.model[3].weight)
    learn.fit(1, lr=[0.1, 0.2])
    assert [g['lr'] for g in learn.opt.param_groups] == [0.1, 0.2]
    with pytest.raises(ValueError, match='3 values of lr for 2'): learn.fit(1, lr=[1, 2, 3])

def test_splitters_that_forget_or_repeat_a_parameter_are_refused():
    with pytest.raises(ValueError, match='leaves out 3.weight'): make(splitter=lambda m: [m[:2]]).fit(1)
    with pytest.raises(ValueError, match='two groups'): make(splitter=lambda m: [m, m[2:]]).fit(1)

def test_frozen_groups_do_not_change():
    learn = make(splitter=halves, opt_func=torch.optim.AdamW).freeze()
    first, last = learn.model[0].weight.clone(), learn.model[3].weight.clone()
    learn.fit(1)
    assert torch.equal(first, learn.model[0].weight) and not torch.equal(last, learn.model[3].weight)
    learn.unfreeze().fit(1)
    assert not torch.equal(first, learn.model[0].weight)
    kept = learn.model[0].weight.clone()
    learn.freeze_to(1).fit(1)   # after training, its optimizer state must not move it either
    assert torch.equal(kept, learn.model[0].weight)
    with pytest.raises(ValueError, match='freeze_to'): learn.freeze_to(2)

def test_norms_and_biases_can_be_spared_weight_decay():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    learn = make(model=model, opt_func=torch.optim.AdamW, decay_norm_bias=False, splitter=halves)
    learn.fit(1, lr=[1e-3, 1e-2], wd=0.5)
    decay = {id(p): (g['weight_decay'], g['lr']) for g in learn.opt.param_groups for p in g['params']}
    got = {n: decay[id(p)] for n, p in model.named_parameters()}
    assert got == {'0.weight': (0.5, 1e-3), '0.bias': (0., 1e-3), '1.weight': (0., 1e-3), '1.bias': (0., 1e-3),
                   '2.weight': (0.5, 1e-2), '2.bias': (0., 1e-2)}

@pytest.mark.parametrize('opt_func,key', [
    (functools.partial(torch.optim.SGD, momentum=0.5), 'momentum'), (torch.optim.Adam, 'betas'),
    (functools.partial(torch.optim.RMSprop, momentum=0.5), 'momentum'), (torch.optim.NAdam, 'betas')])
def test_hyperparameters_have_one_name_in_all_of_torchs_optimizers(opt_func, key):
    opt = opt_func([{'params': [torch.zeros(2, requires_grad=True)]} for _ in range(2)], lr=0.1)
    for name, value in dict(lr=0.3, wd=0.01, mom=0.7).items():
        set_hyper(opt, name, value)
        assert get_hyper(opt, name) == get_hyper(opt, name, 0) == value
    assert opt.param_groups[0][key] in (0.7, (0.7, 0.999))
    set_hyper(opt, 'mom', [0.1, 0.2])
    assert (get_hyper(opt, 'mom', 0), get_hyper(opt, 'mom')) == (0.1, 0.2)
    with pytest.raises(KeyError, match='nonsense'): set_hyper(opt, 'nonsense', 1)

def test_an_optimizer_is_kept_between_fits_unless_it_is_reset():
    learn = make(opt_func=torch.optim.AdamW).fit(1)
    opt = learn.opt
    assert learn.fit(1, lr=0.5).opt is opt and get_hyper(opt, 'lr') == 0.5
    assert learn.fit(1).opt is opt and get_hyper(opt, 'lr') == 0.1
    assert learn.fit(1, reset_opt=True).opt is not opt


# ---- export

@register
def small_net(n_hid, act='relu'): return nn.Sequential(nn.Linear(4, n_hid), nn.ReLU(), nn.Linear(n_hid, 3))

def test_a_registered_model_is_exported_by_name(tmp_path):
    learn = make(model=small_net(5)).fit(1)
    learn.export(tmp_path/'m')
    again = load_learner(tmp_path/'m', device='cpu')
    x = torch.randn(4)
    assert_close([again.predict(x)], [learn.predict(x)])
    assert not again.model.training

def test_a_model_of_ones_own_is_handed_in(tmp_path):
    make().export(tmp_path/'m')
    with pytest.raises(ValueError, match='model='): load_learner(tmp_path/'m')
    load_learner(tmp_path/'m', model=net())

def test_weights_that_do_not_fit_the_model_are_an_error_with_the_files_name(tmp_path):
    make().export(tmp_path/'exported')
    make().save(tmp_path/'saved')
    wider = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3))
    for model, what in (nn.Linear(2, 2), 'Missing key'), (wider, 'size mismatch'):
        with pytest.raises(RuntimeError, match=f'(?s)exported does not fit this model.*{what}'):
            load_learner(tmp_path/'exported', model=model)
        with pytest.raises(RuntimeError, match=f'(?s)saved does not fit this model.*{what}'):
            make(model=model).load(tmp_path/'saved')

def test_what_could_not_be_loaded_is_an_error_at_export(tmp_path):
    learn = make(model=small_net(5))
    learn.model[2] = nn.Linear(5, 7)
    with pytest.raises(TypeError, match='changed'): learn.export(tmp_path/'m')
    with pytest.raises(TypeError, match='JSON'): make(model=small_net(5, act=nn.Tanh())).export(tmp_path/'m')
    assert not list(tmp_path.iterdir())

def test_a_saved_file_is_not_an_exported_one(tmp_path):
    make().save(tmp_path/'m')
    with pytest.raises(ValueError, match='export'): load_learner(tmp_path/'m')


# ---- memory, and waiting for the device

class Tag(torch.autograd.Function):
    "The identity; `graphs` are weak references to its nodes in the graphs that were made."
    graphs = []
    @staticmethod
    def forward(ctx, x):
        Tag.graphs.append(weakref.ref(ctx))
        return x.clone()
    @staticmethod
    def backward(ctx, grad): return grad

class Tagged(nn.Linear):
    def forward(self, x):
        if self.training:
            self.alive.append(sum(g() is not None for g in Tag.graphs))
        return Tag.apply(super().forward(x))

BUSY = {
    'nothing': lambda path: [],
    'CancelBackward': lambda path: [At('before_backward', throw(CancelBackward))],
    'CancelBatch': lambda path: [At('after_loss', throw(CancelBatch))],
    'many': lambda path: [EMA(), TerminateOnNaN(), GradientClip(), GradientAccumulation(2), Checkpoint(path, every=1)]}

@pytest.mark.parametrize('cbs', BUSY)
@pytest.mark.parametrize('loss_func', [F.cross_entropy, with_parts])
@pytest.mark.parametrize('train_metrics', [False, True])
def test_a_graph_is_gone_before_the_next_forward_and_after_the_fit(cbs, loss_func, train_metrics, tmp_path):
    model = Tagged(4, 3)
    model.alive, Tag.graphs = [], []
    learn = make(*BUSY[cbs](tmp_path), model=model, loss_func=loss_func, metrics=[accuracy, Median()],
                 train_metrics=train_metrics).fit(1)
    assert model.alive == [0, 0, 0]
    gc.collect()
    assert not any(g() is not None for g in Tag.graphs)
    assert learn.pred is learn.loss is learn.loss_grad is learn.xb is learn.yb is None

def test_the_graph_is_gone_after_a_fit_that_failed():
    model = Tagged(4, 3)
    model.alive, Tag.graphs = [], []
    learn = make(At('after_loss', lambda learn: 1/0, nth=2), model=model)
    with pytest.raises(ZeroDivisionError) as e: learn.fit(2)
    del e   # its traceback holds the frames of the loop, and these the loss
    gc.collect()
    assert not any(g() is not None for g in Tag.graphs) and learn.loss is None

class NoWaiting(Callback):
    "Between before_train and after_train no tensor may be asked for its number: on a GPU that waits."
    def __init__(self, monkeypatch): self.monkeypatch = monkeypatch
    def before_train(self, learn):
        def refuse(self, *args): raise AssertionError('asked a tensor for its number')
        # not numpy: targets are counted before they leave the CPU, and numpy() of a tensor on a GPU is an error
        for name in '__float__ __int__ __bool__ __index__ item tolist cpu'.split():
            self.monkeypatch.setattr(torch.Tensor, name, refuse)
    def after_train(self, learn): self.monkeypatch.undo()
    def after_fit(self, learn): self.monkeypatch.undo()

def test_nothing_in_the_default_loop_waits_for_the_device():
    dls = DataLoaders(list(loaders().train), list(loaders().valid))   # the shuffling itself asks for indices
    learn = Learner(net(0.5), dls, F.cross_entropy, torch.optim.SGD, metrics=[accuracy, top_k(2), Perplexity],
                    train_metrics=True, device='cpu', cbs=[EMA(), GradientAccumulation(2), GradientClip()])
    learn.remove_cb(learn.cb(SanityCheck))   # looks at targets once, before they go to the device
    with pytest.MonkeyPatch.context() as patch, learn.no_bar(): learn.fit(2, cbs=NoWaiting(patch))


def test_a_validation_within_another_leaves_its_averages_alone():
    class Aside(Callback):
        busy = False
        def after_batch(self, learn):
            if self.busy: return
            self.busy = True
            learn.validate([(torch.zeros(8, 4), torch.zeros(8).long())])
            learn.get_preds([(torch.zeros(3, 4),)])
            self.busy = False
    torch.manual_seed(0)
    ds = TensorDataset(torch.randn(64, 4), torch.randint(0, 3, (64,)))
    learn = Learner(nn.Linear(4, 3), get_dls(ds, ds, bs=16), F.cross_entropy, metrics=[accuracy], progress=False)
    assert learn.validate(cbs=Aside()) == learn.validate()
    assert torch.equal(learn.get_preds(cbs=Aside())[0], learn.get_preds()[0])


# what reviewers found

def test_a_loss_or_a_metric_of_one_number_may_have_a_dimension():
    loss = lambda pred, targ: F.cross_entropy(pred, targ).reshape(1)
    share = lambda pred, targ: (pred.argmax(1, keepdim=True) == targ[:, None]).float().mean(0)
    learn = make(metrics=[accuracy, learner.Mean(share, 'share')])
    right = learn.validate()
    learn.loss_func = loss
    assert learn.validate() == right and right['share'] == right['accuracy']

@pytest.mark.parametrize('metric, what', [(lambda pred, targ: pred.mean(0), r'shape \(3,\)'),
                                          (lambda pred, targ: {'a': 1}, 'a dict')])
def test_a_metric_of_several_numbers_is_refused_by_its_name(metric, what):
    with pytest.raises(ValueError, match=f'mine gives .*{what}'): make(metrics=learner.Mean(metric, 'mine')).validate()

def test_a_loss_of_several_numbers_is_refused():
    with pytest.raises(ValueError, match='loss gives a tensor of shape'):
        make(loss_func=nn.CrossEntropyLoss(reduction='none')).fit(1)

def test_a_metric_object_that_computes_several_numbers_is_refused_by_its_name():
    class Both(Perplexity):
        def compute(self): return dict(a=1., b=2.)
    with pytest.raises(ValueError, match='both gives a dict'): make(metrics=Both).validate()

@pytest.mark.parametrize('name', ['loss', 'valid_loss', 'epoch', 'time'])
def test_a_metric_cannot_take_the_name_of_another_column(name):
    with pytest.raises(ValueError, match=f'called {name}'): make(metrics=learner.Mean(accuracy, name))

def test_a_metric_can_be_named():
    named = functools.partial(top_k, 2)()
    named.__name__ = 'second'
    partial = functools.partial(accuracy)
    partial.__name__ = 'mine'
    learn = make(metrics=[accuracy, learner.Mean(accuracy, 'acc'), named, partial])
    assert [n for n, _ in learn.metrics] == ['accuracy', 'acc', 'second', 'mine']

# targets that do not count

def padded(n=24, seq=6, seed=0):
    "Sequences with padding: of some rows nothing counts."
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n, seq), generator=g)
    for i in range(n): y[i, i % (seq + 1):] = -100
    return TensorDataset(torch.randn(n, seq, 4, generator=g), y)

def by_token(pred, targ): return F.cross_entropy(pred.flatten(0, 1), targ.flatten())
by_token.ignore_index = -100

def test_targets_that_the_loss_ignores_do_not_count_in_averages():
    x, y = padded().tensors
    learn = make(dls=get_dls(padded(), padded(), bs=3, valid_bs=5), loss_func=by_token, metrics=Perplexity)
    right = by_token(learn.model(x), y)
    found = learn.validate()
    assert found['loss'] == pytest.approx(right.item(), rel=1e-6)
    assert found['perplexity'] == pytest.approx(right.exp().item(), rel=1e-5)

def test_another_ignored_class_does_not_count_either_also_where_nothing_else_is_in_a_batch():
    x, y = samples(20).tensors
    y[4:8] = 2
    loss = functools.partial(F.cross_entropy, ignore_index=2)
    learn = make(dls=get_dls(TensorDataset(x, y), TensorDataset(x, y), bs=4, valid_bs=4), loss_func=loss)
    assert learn.validate()['loss'] == pytest.approx(loss(learn.model(x), y).item(), rel=1e-6)
    two = dict(model=nn.Linear(4, 2), dls=get_dls(TensorDataset(x, y), bs=20))
    with pytest.raises(ValueError, match='A target is 2'): make(SanityCheck(), **two).fit(1)
    make(SanityCheck(), **two, loss_func=loss).fit(1)

def test_accumulation_weighs_by_the_targets_that_count():
    ds = padded()
    ds.tensors[1][:, 0] = 1   # no batch without a target: its gradient would be NaN
    whole = make(dls=get_dls(ds, bs=24), loss_func=by_token).fit(1)
    parts = make(GradientAccumulation(8), dls=get_dls(ds, bs=3), loss_func=by_token).fit(1)
    assert_close(weights(whole), weights(parts))

def test_metrics_add_up_in_double_precision():
    metric = rmse()
    pred = torch.full((64,), 1.2345678901234567, dtype=torch.float64)
    for _ in range(1000): metric.update(pred, torch.zeros(64, dtype=torch.float64))
    assert metric.compute().item() == pytest.approx(1.2345678901234567, rel=1e-12)

def test_a_missing_label_of_a_sample_does_not_count_either():
    x, y = samples(21).tensors
    y[::3] = -100
    learn = make(dls=get_dls(TensorDataset(x, y), TensorDataset(x, y), bs=4, valid_bs=4))
    assert learn.validate()['loss'] == pytest.approx(F.cross_entropy(learn.model(x), y).item(), rel=1e-6)

def test_a_metric_is_weighted_by_the_targets_that_it_counts_itself():
    x, y = samples(22).tensors
    y[:3], y[9] = 2, 2
    def real(pred, targ, ignore_index=2): return (pred.argmax(1) == targ)[targ != ignore_index].float().mean()
    loss = functools.partial(F.cross_entropy, ignore_index=2)
    learn = make(dls=get_dls(TensorDataset(x, y), TensorDataset(x, y), bs=4, valid_bs=5), loss_func=loss,
                 metrics=[accuracy, real])
    pred, found = learn.model(x), learn.validate()
    assert found['accuracy'] == pytest.approx(accuracy(pred, y).item())
    assert found['real'] == pytest.approx(real(pred, y).item())

# models with several outputs

Out = namedtuple('Out', 'logits value')

class Output(dict):
    "A dict with attributes, as some libraries' models give."
    __getattr__ = dict.__getitem__

class TwoHeads(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.body, self.value, self.kind = net(), nn.Linear(4, 1), kind
    def forward(self, x):
        both = self.body(x), self.value(x)
        if self.kind is tuple: return both
        return Out(*both) if self.kind is Out else Output(zip(Out._fields, both))

def heads(pred): return (pred['logits'], pred['value']) if isinstance(pred, dict) else pred
def two_losses(pred, targ):
    logits, value = heads(pred)
    return F.cross_entropy(logits, targ) + value.square().mean()

@pytest.mark.parametrize('kind', [tuple, Out, Output])
def test_all_outputs_of_a_model_are_predicted(kind):
    seen = []
    def metric(pred, targ):
        seen.append(pred.logits if kind is Output else pred[0])
        return accuracy(heads(pred)[0], targ)
    learn = make(model=TwoHeads(kind), loss_func=two_losses, metrics=metric).fit(1)
    x, y = samples(10, seed=1).tensors
    learn.model.eval()
    preds, targs, losses = learn.get_preds(with_loss=True)
    assert type(preds) is kind and torch.equal(targs, y)
    logits, value = heads(preds)
    for got, right in zip((logits, value), heads(learn.model(x))): torch.testing.assert_close(got, right)
    torch.testing.assert_close(losses, F.cross_entropy(logits, y, reduction='none') + value[:, 0].square())
    one = learn.predict(x[0])
    assert type(one) is kind and [tuple(t.shape) for t in heads(one)] == [(3,), (1,)]

def test_a_batch_may_be_any_mapping():
    class Named(nn.Linear):
        def forward(self, a, b): return super().forward(a + b)
    x, y = samples(8).tensors
    batches = [(UserDict(a=x, b=x), y)]
    learn = make(ToDevice('cpu'), model=Named(4, 3), dls=DataLoaders(batches, batches)).fit(1)
    torch.testing.assert_close(learn.get_preds()[0], learn.model(x, x).detach())

def test_what_cannot_be_joined_is_a_sentence():
    class Scalar(nn.Linear):
        def forward(self, x): return super().forward(x).mean()
    with pytest.raises(TypeError, match='without dimensions.*with act'): make(model=Scalar(4, 3)).get_preds()

def test_predict_refuses_what_holds_no_tensor():
    with pytest.raises(TypeError, match='predict takes a tensor.*got a list'): make().predict([0., 0., 0., 0.])

# the loader's own choice of items

class Zeroed(DataLoader):
    def __iter__(self): return ((x*0, y) for x, y in super().__iter__())

class Pairs:
    "Batches of indices of one's own, that take some."
    def __iter__(self): return iter([[1, 3], [5]])
    def __len__(self): return 2

@pytest.mark.parametrize('loader, n', [
    (lambda ds: DataLoader(ds, batch_sampler=Pairs()), 3),
    (lambda ds: DataLoader(ds, 4, sampler=RandomSampler(ds, num_samples=8)), 8),
    (lambda ds: DataLoader(ds, 4, sampler=RandomSampler(ds, replacement=True)), 20),
    (lambda ds: DataLoader(ds, 4, sampler=SequentialSampler(range(8))), 8),
    (lambda ds: DataLoader(ds, batch_sampler=BatchSampler(SequentialSampler(ds), 3, drop_last=True)), 20),
    (lambda ds: DataLoader(ds, 4, shuffle=True, drop_last=True), 20)])
def test_a_loader_that_takes_some_items_is_taken_as_it_is_and_others_in_order_and_whole(loader, n):
    ds, learn = samples(20), make()
    assert len(learn.get_preds(loader(ds))[0]) == n

def test_a_loader_that_changes_its_batches_is_asked_for_them():
    preds = make().get_preds(Zeroed(samples(20), 4))[0]
    assert torch.equal(preds, preds[:1].expand_as(preds))

@pytest.mark.parametrize('thing', [torch.randn(4, 4), samples(8)])
def test_data_instead_of_a_loader_is_a_sentence(thing):
    with pytest.raises(TypeError, match='A loader gives batches'): make().get_preds(thing)

# a second fit

class Order(Callback):
    def __init__(self): self.seen = []
    def before_batch(self, learn):
        if learn.training: self.seen.append(learn.xb.tolist())

def test_a_second_fit_sees_the_batches_of_later_epochs():
    one, more = Order(), Order()
    make(one).fit(3)
    learn = make(more)
    for _ in range(3): learn.fit(1)
    assert one.seen == more.seen and one.seen[:3] != one.seen[3:6]
    assert learn.epochs_done == 3

def test_a_fit_that_ends_early_counts_the_epochs_that_it_has_begun():
    order = Order()
    learn = make(EarlyStopping(patience=1), order, lr=0.).fit(5)
    assert learn.epochs_done == 2
    learn.fit(1, lr=0.)
    whole = Order()
    make(whole, lr=0.).fit(3)
    assert order.seen == whole.seen

def pruned(learn): prune.l1_unstructured(learn.model[0], 'weight', 0.5)
def spectral(learn): torch.nn.utils.parametrizations.spectral_norm(learn.model[0])
def wrapped(learn): learn.model = nn.Sequential(learn.model, nn.Identity())
def compiled(learn): learn.model = torch.compile(learn.model, backend='eager')
def known(learn):
    learn.model.append(nn.Linear(3, 3))
    learn.opt.add_param_group(dict(params=learn.model[4].parameters()))
def other(learn):
    learn.model[3] = nn.Linear(8, 3)
    learn.opt = torch.optim.SGD(learn.model.parameters(), lr=0.1)

@pytest.mark.parametrize('change', [pruned, spectral, wrapped, compiled, known, other, lambda learn: None])
def test_a_model_whose_parameters_the_optimizer_knows_is_trained_on(change):
    learn = make().fit(1)
    change(learn)
    learn.fit(1)

def test_an_optimizer_may_leave_parameters_out():
    learn = make(opt_func=lambda groups, lr: torch.optim.SGD(groups[0]['params'][:2], lr)).fit(1)
    learn.fit(1)

def test_a_copy_made_within_a_fit_can_be_trained_by_itself():
    def aside(learn): copy.deepcopy(learn).fit(1, lr=0.5)
    plain = make().fit(2)
    for event in 'after_epoch', 'after_pred', 'after_batch':
        learn = make(At(event, aside))
        torch.manual_seed(1)
        assert_equal(weights(learn.fit(2)), weights(plain))

def test_a_new_layer_is_not_left_untrained_in_silence():
    learn = make().fit(1)
    learn.model[3] = nn.Linear(8, 3)
    with pytest.raises(ValueError, match=r'3\.weight, 3\.bias came into the model.*reset_opt=True'): learn.fit(1)
    before = learn.model[3].weight.detach().clone()
    learn.fit(1, reset_opt=True)
    assert not torch.equal(learn.model[3].weight, before)
    learn.model.append(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r'4\.weight'): learn.fit(1)

# looking from within a fit

class Each(Callback):
    "Calls `do(learn)` at every announcement of `event`."
    def __init__(self, event, do, order=0):
        self.order = order
        setattr(self, event, do)

def test_looking_leaves_the_modes_of_parts_as_they_were():
    learn = make(model=nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    learn.model[1].eval()
    learn.get_preds()
    assert not learn.model[1].training and learn.model[2].training

def test_looking_at_the_end_of_a_part_does_not_hide_that_it_was_cut_short(tmp_path):
    def stop(learn):
        if learn.epoch == 1: raise CancelFit
    looks = [Each('after_epoch', lambda learn: learn.validate(), order=50)]
    found = []
    for cbs in [], looks:
        folder = tmp_path/str(len(found))
        make(Each('before_batch', stop), Checkpoint(folder), *cbs).fit(3)
        found.append([p.name for p in folder.glob('*.ckpt')])
    assert found[0] == found[1] == ['e00001_b00000000.ckpt']

class Slow(Dataset):
    def __len__(self): return 16
    def __getitem__(self, i): return torch.full((4,), float(i)), i % 3

def test_a_loader_whose_workers_stay_can_be_used_again_within_its_epoch():
    dl = DataLoader(Slow(), 2, num_workers=1, persistent_workers=True)
    seen = []
    look = At('after_batch', lambda learn: learn.validate(learn.dls.train), nth=2)
    first = At('after_batch', lambda learn: learn.dls.one_batch(), nth=4)
    count = Each('before_batch', lambda learn: seen.append(learn.xb[0, 0].item()) if learn.training else None)
    make(look, first, count, dls=DataLoaders(dl)).fit(1)
    assert seen == list(range(0, 16, 2))

class Positions(nn.Module):
    "Has integers among its parameters."
    def __init__(self):
        super().__init__()
        self.order, self.body = nn.Parameter(torch.tensor([3, 1, 0, 2]), requires_grad=False), nn.Linear(4, 3)
    def forward(self, x): return self.body(x[:, self.order])

def test_integer_parameters_are_neither_averaged_nor_trained():
    learn = make(EMA(), model=Positions()).fit(1)
    learn.unfreeze().fit(1)
    assert learn.model.order.tolist() == [3, 1, 0, 2] and not learn.model.order.requires_grad

def test_looking_with_another_loss_does_not_change_what_counts():
    def look(learn):
        kept, learn.loss_func = learn.loss_func, lambda pred, targ: pred.sum()
        learn.validate(list(get_dls(samples(8), bs=8).train))
        learn.loss_func = kept
    def counts(*cbs):
        x, y = samples(40).tensors
        y[::3] = 2
        loss = functools.partial(F.cross_entropy, ignore_index=2)
        seen = []
        note = Each('after_loss', lambda learn: seen.append(learn.n) if learn.training else None)
        make(note, *cbs, dls=get_dls(TensorDataset(x, y), bs=8), loss_func=loss).fit(1)
        return seen
    assert counts(At('after_pred', look, nth=1)) == counts()

# wrong use

def test_the_arguments_of_another_library_are_a_sentence():
    with pytest.raises(TypeError, match='the model comes first'): Learner(loaders(), net(), F.cross_entropy)
    with pytest.raises(TypeError, match='methods named after events'): make(lambda learn: None)

def test_a_class_of_losses_is_made_into_one():
    assert isinstance(make(loss_func=nn.CrossEntropyLoss).fit(1).loss_func, nn.CrossEntropyLoss)

@pytest.mark.parametrize('pred, targ, loss_func, what', [
    (torch.randn(4, 3), torch.tensor([[0], [1], [2], [0]]), F.cross_entropy, r'squeeze\(1\)'),
    (torch.randn(4, 1), torch.randn(4, 1), nn.CrossEntropyLoss(), 'one output'),
    (torch.randn(4, 1), torch.zeros(4).long(), F.cross_entropy, 'one output'),
    (torch.randn(4, 3), torch.tensor([0, 1, 2, 0]).int(), F.cross_entropy, r'int32.*\.long\(\)'),
    (torch.randn(4, 2), torch.tensor([0, 1, 1, 0]).bool(), nn.CrossEntropyLoss(), r'bool.*\.long\(\)'),
    (torch.randn(4), torch.tensor([0, 1, 1, 0]), F.binary_cross_entropy_with_logits, r'\.float\(\)')])
def test_targets_of_the_wrong_kind_are_a_sentence(pred, targ, loss_func, what):
    with pytest.raises(ValueError, match=what): learner.check_targets(pred, targ, loss_func)

def gaussian_nll(pred, targ): return F.gaussian_nll_loss(pred[:, 0], targ, pred[:, 1].exp())
def masked_mse(pred, targ): return (pred[:, 0] - targ).square().mean()

@pytest.mark.parametrize('loss_func', [gaussian_nll, masked_mse])
def test_a_loss_is_not_judged_by_a_part_of_its_name(loss_func):
    learner.check_targets(torch.randn(4, 2), torch.randn(4), loss_func)

class bce_with_logits:
    "A namesake of a known loss, that takes what the known one does not."
    def __call__(self, pred, targ): return F.binary_cross_entropy_with_logits(pred[:, 0], targ.float())

def test_a_namesake_of_a_known_loss_is_not_judged():
    learner.check_targets(torch.randn(4, 1), torch.tensor([0, 1, 1, 0]), bce_with_logits())

@pytest.mark.parametrize('splitter', [None, lambda m: [m[0], m[3]]])
def test_a_rate_in_a_tensor_is_a_rate(splitter):
    rate = torch.tensor(0.1)
    def rates(lr, **kw):
        learn = make(splitter=splitter, **kw)
        schedule.fit_one_cycle(learn, 2, lr)
        return torch.tensor(learn.recorder.lrs)
    right = rates(0.1)
    torch.testing.assert_close(rates(rate), right)
    torch.testing.assert_close(rates(None, opt_func=lambda groups, lr: torch.optim.SGD(groups, torch.tensor(lr))), right)
    assert rate == 0.1

def test_rates_may_come_from_numpy(tmp_path):
    learn = make(splitter=lambda m: [m[0], m[3]]).fit(np.int64(1), lr=np.array([0.1, 0.2]))
    assert [g['lr'] for g in learn.opt.param_groups] == [0.1, 0.2]
    learn.fit(1, lr=np.float32(0.5)).save(tmp_path/'m', with_opt=True)

def test_a_number_for_a_tuple_is_refused():
    opt = torch.optim.AdamW([dict(params=[torch.ones(1)]), dict(params=[torch.ones(1)])])
    with pytest.raises(ValueError, match="'mom' and 'sqr_mom'"): set_hyper(opt, 'betas', (0.8, 0.9))
    set_hyper(opt, 'betas', [(0.8, 0.9)]*2)
    assert get_hyper(opt, 'sqr_mom', 0) == 0.9

@pytest.mark.parametrize('name, mode', [('MAE', 'min'), ('RMSE', 'min'), ('valid_Loss', 'min'), ('Accuracy', 'max')])
def test_what_is_better_is_known_by_names_in_capitals_too(name, mode): assert EarlyStopping(name).mode == mode

def test_no_patience_ends_with_the_first_epoch_that_gains_nothing():
    values = iter([3., 2., 2., 1.])
    def falling(pred, targ): return 0.
    class Value(Perplexity):
        name = 'value'
        def update(self, pred, targ): pass
        def compute(self): return next(values)
    learn = make(EarlyStopping('value', patience=0, mode='min'), metrics=Value).fit(4)
    assert [row['value'] for row in learn.recorder.values] == [3., 2., 2.]

def test_a_model_without_parameters_can_be_measured():
    class Metric(Perplexity):
        def to(self, device): self.device = device
    learn = Learner(nn.Identity(), DataLoaders(None, [(torch.randn(4, 3), torch.arange(4) % 3)]), F.cross_entropy,
                    metrics=Metric, default_cbs=False)
    learn.validate()

@register
def staged_net(n=3):
    rates = torch.linspace(0, 0.5, n)
    return nn.Sequential(*[nn.Dropout(r.item()) for r in rates], nn.Linear(4, 3))

def test_a_model_that_computes_with_numbers_when_it_is_made_can_be_exported(tmp_path):
    state = torch.get_rng_state()
    learn = make(model=staged_net())
    torch.set_rng_state(state)
    learn.export(tmp_path/'m')
    assert torch.equal(torch.get_rng_state(), state)
    assert_equal(weights(learn), weights(load_learner(tmp_path/'m')))
