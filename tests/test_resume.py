"""Stopping and going on (chapter 05): a run stopped at any batch and resumed ends with the bits of one that was not.
Files are whole or not there, and hold no code."""
import copy
import csv
import os
import pickle
import random
import signal
import subprocess
import sys
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from disks import no_file_over
from minidl.learner import (EMA, Callback, CancelFit, Checkpoint, CSVLogger, EarlyStopping, GradientAccumulation,
                            Learner, Recorder, TerminateOnNaN, read_checkpoint, read_tensors)
from minidl.training import DataLoaders, EpochBatches, accuracy, get_dls

N_EPOCHS, N_BATCHES = 2, 5


def samples(n=18, seed=0):
    g = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, 4, generator=g), torch.randint(0, 3, (n,), generator=g))

class Noisy(Dataset):
    "Items that are drawn anew, from the global generators, each time."
    def __init__(self, ds): self.ds = ds
    def __len__(self): return len(self.ds)
    def __getitem__(self, i):
        x, y = self.ds[i]
        return x + 0.1*torch.randn(4) + 0.1*random.random() + 0.1*np.random.rand(), y

class OldSampler(Sampler):
    "An order from (seed, epoch), but it cannot skip: what torch's DistributedSampler offers."
    epoch = 0
    def set_epoch(self, epoch): self.epoch = epoch
    def __iter__(self): return iter(torch.randperm(18, generator=torch.Generator().manual_seed(self.epoch)).tolist())
    def __len__(self): return 18

TRAIN = dict(
    whole=lambda ds: get_dls(ds, bs=4).train,
    items=lambda ds: get_dls(Noisy(ds), bs=4).train,
    foreign=lambda ds: DataLoader(ds, batch_size=4, shuffle=True),
    noisy=lambda ds: DataLoader(Noisy(ds), batch_size=4, shuffle=True),
    own_generator=lambda ds: DataLoader(ds, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5)),
    no_generator=lambda ds: DataLoader(ds, batch_sampler=EpochBatches(18, 4, shuffle=True)),
    cannot_skip=lambda ds: DataLoader(ds, batch_size=4, sampler=OldSampler()),
    a_list=lambda ds: list(get_dls(ds, bs=4).train))

def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

def make(*cbs, train='whole', opt_func=torch.optim.AdamW, lr=0.05, model=None, **kw):
    "A learner with all that has a memory or rolls dice; 5 batches to train on, 3 to validate on."
    torch.manual_seed(2), random.seed(2), np.random.seed(2)
    dls = DataLoaders(TRAIN[train](samples()), DataLoader(samples(10, seed=1), batch_size=4))
    return Learner(model or net(), dls, F.cross_entropy, opt_func, lr=lr, metrics=accuracy, cbs=[Recorder(), *cbs],
                   default_cbs=False, **kw)

def assert_same_weights(a, b):
    for (name, s), t in zip(a.model.state_dict().items(), b.model.state_dict().values()): assert torch.equal(s, t), name

def values(learn): return [{k: v for k, v in row.items() if k != 'time'} for row in learn.recorder.values]

def assert_same_run(a, b):
    assert a.recorder.losses == b.recorder.losses
    assert a.recorder.lrs == b.recorder.lrs and values(a) == values(b)
    assert_same_weights(a, b)

class Stop(Callback):
    "Raises at one batch."
    def __init__(self, event, epoch, i, exc=RuntimeError('power cut'), training=True, order=99):
        self.order = order
        def stop(learn):
            if (learn.epoch, learn.iter, learn.training) == (epoch, i, training): raise exc
        setattr(self, event, stop)

def stopped(folder, stop, make=make, **kw):
    "Stops a run; a new learner goes on from its last checkpoint, in a process that has drawn other numbers."
    try: make(Checkpoint(folder, every=1), stop).fit(N_EPOCHS, **kw)
    except (RuntimeError, KeyboardInterrupt): pass
    again = make(Checkpoint(folder, every=1))
    torch.manual_seed(99), random.seed(99), np.random.seed(99)
    return again.fit(resume=folder)


# ---- going on exactly

def cbs(): return EMA(0.8), GradientAccumulation(2)

@pytest.mark.parametrize('train', TRAIN)
def test_a_run_stopped_at_any_batch_goes_on_to_the_same_bits(train, tmp_path):
    rich = lambda *more: make(*cbs(), *more, train=train)
    whole = rich().fit(N_EPOCHS)
    for epoch in range(N_EPOCHS):
        for i in range(N_BATCHES):
            if (epoch, i) == (0, 0): continue   # half a window: there is no checkpoint yet
            assert_same_run(whole, stopped(tmp_path/f'{epoch}{i}', Stop('after_batch', epoch, i), rich))

@pytest.mark.parametrize('event', 'before_batch after_pred after_backward before_step after_step after_batch'.split())
@pytest.mark.parametrize('order', [-99, 99])
def test_it_does_not_matter_at_which_event_it_stopped(event, order, tmp_path):
    assert_same_run(make().fit(N_EPOCHS), stopped(tmp_path, Stop(event, 1, 2, order=order)))

@pytest.mark.parametrize('exc', [RuntimeError(), KeyboardInterrupt(), CancelFit()], ids=repr)
@pytest.mark.parametrize('event', ['before_batch', 'after_step', 'after_batch'])
def test_it_does_not_matter_what_stopped_it(event, exc, tmp_path):
    assert_same_run(make().fit(N_EPOCHS), stopped(tmp_path, Stop(event, 0, 2, exc)))

@pytest.mark.parametrize('event', ['before_batch', 'after_batch', 'after_validate', 'after_epoch'])
def test_a_run_stopped_in_validation_goes_on_to_the_same_bits(event, tmp_path):
    rich = lambda *more: make(*cbs(), *more)
    stop = Stop(event, 0, 2 if 'batch' not in event else 1, training=False, order=50)
    assert_same_run(rich().fit(N_EPOCHS), stopped(tmp_path, stop, rich))

@pytest.mark.parametrize('every', [None, 2, 3])
def test_going_on_from_fewer_checkpoints_repeats_the_lost_batches(every, tmp_path):
    saved = lambda *more: make(*cbs(), Checkpoint(tmp_path, every=every), *more)
    with pytest.raises(RuntimeError): saved(Stop('after_loss', 1, 4)).fit(N_EPOCHS)
    assert_same_run(make(*cbs()).fit(N_EPOCHS), saved().fit(resume=tmp_path))

def test_a_run_may_be_stopped_more_than_once(tmp_path):
    saved = lambda *more: make(*cbs(), Checkpoint(tmp_path, every=1), *more)
    with pytest.raises(RuntimeError): saved(Stop('after_batch', 0, 1)).fit(N_EPOCHS)
    for epoch, i in (0, 3), (1, 0), (1, 4):
        with pytest.raises(RuntimeError): saved(Stop('after_batch', epoch, i)).fit(resume=tmp_path)
    assert_same_run(make(*cbs()).fit(N_EPOCHS), saved().fit(resume=tmp_path))

def test_averages_of_training_metrics_go_on_too(tmp_path):
    tracked = lambda *more: make(*more, train_metrics=True)
    assert_same_run(tracked().fit(N_EPOCHS), stopped(tmp_path, Stop('after_batch', 1, 2), tracked))

def test_a_run_in_double_precision_goes_on_exactly(tmp_path):
    double = lambda *more: make(At64(), *more, model=net().double())
    assert_same_run(double().fit(N_EPOCHS), stopped(tmp_path, Stop('after_batch', 1, 2), double))

class At64(Callback):
    def before_batch(self, learn): learn.xb = learn.xb.double()

@pytest.mark.parametrize('opt_func', [torch.optim.SGD, torch.optim.RMSprop, torch.optim.NAdam])
def test_any_optimizer_goes_on(opt_func, tmp_path):
    groups, args = dict(splitter=lambda m: [m[:2], m[2:]], decay_norm_bias=False), dict(lr=[0.01, 0.02], wd=0.1)
    other = lambda *more: make(*more, opt_func=opt_func, **groups)
    assert_same_run(other().fit(N_EPOCHS, **args), stopped(tmp_path, Stop('after_batch', 1, 2), other, **args))

def test_patience_and_the_best_value_go_on(tmp_path):
    patient = lambda *more: make(EarlyStopping(patience=2, min_delta=9), *more)
    whole = patient().fit(6)
    with pytest.raises(RuntimeError): patient(Checkpoint(tmp_path), Stop('after_batch', 1, 2)).fit(6)
    again = patient(Checkpoint(tmp_path)).fit(resume=tmp_path)
    assert len(again.recorder.rows) == len(whole.recorder.rows) == 3
    assert again.cb(Checkpoint).best == min(v['valid_loss'] for v in values(whole))

def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    whole = make(Checkpoint(tmp_path)).fit(N_EPOCHS)
    assert_same_run(whole, make(Checkpoint(tmp_path)).fit(resume=tmp_path))

KILLED = '''
import sys; sys.path.insert(0, {tests!r})
from test_resume import *
class Kill(Callback):
    def after_backward(self, learn):
        if (learn.epoch, learn.iter) == (1, 3): os.kill(os.getpid(), signal.SIGKILL)
make(*cbs(), Kill(), Checkpoint({folder!r}, every=2), train='foreign').fit(N_EPOCHS)
'''

def test_a_process_killed_between_two_checkpoints_goes_on_to_the_same_bits(tmp_path):
    code = KILLED.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    env = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, '-c', code], env=env).returncode == -signal.SIGKILL
    assert (read_checkpoint(tmp_path)['epoch'], read_checkpoint(tmp_path)['batch']) == (1, 2)
    again = make(*cbs(), Checkpoint(tmp_path), train='foreign').fit(resume=tmp_path)
    assert_same_run(make(*cbs(), train='foreign').fit(N_EPOCHS), again)


def test_averages_that_begin_with_a_resumed_run_begin_with_its_weights(tmp_path):
    make(Checkpoint(tmp_path)).fit(1, lr=0.1)
    saved = read_checkpoint(tmp_path)
    seen = []
    class Look(Callback):
        def before_train(self, learn): seen.append([a.clone() for a in learn.cb(EMA).avgs])
    state = saved | dict(fit=dict(n_epochs=2, lr=0.1, wd=None))
    torch.save(state, tmp_path/'longer.ckpt')
    make(EMA(), Look(), Checkpoint(tmp_path)).fit(resume=tmp_path/'longer.ckpt')
    names = [k for k, _ in net().named_parameters()]
    for a, k in zip(seen[0], names): assert torch.equal(a, saved['model'][k])

def test_what_was_frozen_stays_frozen(tmp_path):
    frozen = lambda *more: make(*more, splitter=lambda m: [m[0], m[1:]])
    learn = frozen(Checkpoint(tmp_path, every=1), Stop('after_batch', 1, 2)).freeze()
    before = learn.model[0].weight.detach().clone()
    with pytest.raises(RuntimeError): learn.fit(N_EPOCHS)
    again = frozen(Checkpoint(tmp_path)).fit(resume=tmp_path)
    assert torch.equal(again.model[0].weight, before) and not again.model[0].weight.requires_grad
    assert_same_run(frozen().freeze().fit(N_EPOCHS), again)

Pair = namedtuple('Pair', 'a b')

class Counts:
    "A metric that keeps what it has seen in an array, a dict of a kind, and a set."
    def __init__(self): self.reset()
    def reset(self): self.table, self.more, self.seen = np.zeros((3, 3)), Counter(), set()
    def update(self, pred, targ):
        np.add.at(self.table, (targ.numpy(), pred.argmax(1).numpy()), 1)
        self.more.update(n=len(targ))
        self.seen.update(targ.tolist())
    def compute(self): return float(self.table.diagonal().sum() / self.more['n'] + len(self.seen))

def test_a_metric_goes_on_with_its_arrays_and_dicts(tmp_path):
    tracked = lambda *more: make(*more, train_metrics=True)
    def counted(*more):
        learn = tracked(*more)
        learn.metrics.append(('counts', Counts()))
        return learn
    whole, again = counted().fit(N_EPOCHS), stopped(tmp_path, Stop('after_batch', 1, 2), counted)
    assert_same_run(whole, again)
    assert [v['train_counts'] for v in values(whole)] == [v['train_counts'] for v in values(again)]

def test_a_checkpoint_can_be_read_whatever_a_metric_keeps(tmp_path):
    class Odd(Counts):
        def reset(self):
            super().reset()
            self.functions, self.inner = [len], {'f': print}
    learn = make(Checkpoint(tmp_path, every=1), train_metrics=True)
    learn.metrics.append(('odd', Odd()))
    learn.fit(1)
    assert read_checkpoint(tmp_path)['epoch'] == 1

def test_other_files_in_the_folder_of_checkpoints_are_left_alone(tmp_path):
    for name in 'pretrained.ckpt', 'e1.ckpt', 'best_e00001_b00000000.ckpt': (tmp_path/name).write_text('mine')
    make(Checkpoint(tmp_path)).fit(N_EPOCHS)
    assert (tmp_path/'e00002_b00000000.ckpt').exists()
    for name in 'pretrained.ckpt', 'e1.ckpt', 'best_e00001_b00000000.ckpt': assert (tmp_path/name).read_text() == 'mine'
    assert read_checkpoint(tmp_path)['epoch'] == N_EPOCHS

def test_a_checkpoint_is_not_replaced_by_one_of_nan(tmp_path):
    class Poison(Callback):
        def before_batch(self, learn):
            if learn.training and (learn.epoch, learn.iter) == (1, 1): learn.xb = learn.xb*float('nan')
    with pytest.warns(UserWarning, match='epoch 1, batch 1'):
        make(Poison(), TerminateOnNaN(), Checkpoint(tmp_path, every=1)).fit(N_EPOCHS)
    state = read_checkpoint(tmp_path)
    assert (state['epoch'], state['batch']) == (1, 1)
    assert all(t.isfinite().all() for t in state['model'].values())

def test_a_checkpoint_is_not_replaced_by_weights_that_an_infinite_gradient_has_spoilt(tmp_path):
    class Root(Callback):
        "The root of 0 is 0, and its slope infinite."
        def after_loss(self, learn):
            if learn.training and (learn.epoch, learn.iter) == (1, 1):
                learn.loss_grad = learn.loss_grad + (learn.pred*0).sum().sqrt()
    with pytest.warns(UserWarning, match='The weights are not finite'):
        make(Root(), TerminateOnNaN(1), Checkpoint(tmp_path, every=1)).fit(N_EPOCHS)
    state = read_checkpoint(tmp_path)
    assert (state['epoch'], state['batch']) == (1, 1)
    assert all(t.isfinite().all() for t in state['model'].values())

def test_a_callbacks_state_may_hold_any_tuple(tmp_path):
    class Named(Callback):
        def state_dict(self): return {'pair': Pair(1, 2.)}
    make(Named(), Checkpoint(tmp_path)).fit(1)
    assert read_checkpoint(tmp_path)['cbs']['Named-1'] == {'pair': (1, 2.)}

def test_a_table_of_other_columns_is_not_appended_to(tmp_path):
    file = tmp_path/'log.csv'
    make(CSVLogger(file)).fit(1)
    make(CSVLogger(file, append=True)).fit(1)
    with pytest.raises(ValueError, match='log.csv has the columns epoch, train_loss, valid_loss, accuracy, time'):
        make(CSVLogger(file, append=True), train_metrics=True).fit(1)
    assert len(file.read_text().splitlines()) == 3


# ---- what resuming refuses

def checkpoint(folder, *cbs):
    make(*cbs, Checkpoint(folder)).fit(N_EPOCHS, lr=0.1)
    return next(folder.glob('*.ckpt'))

def test_other_arguments_than_the_checkpoints_are_refused(tmp_path):
    checkpoint(tmp_path)
    for name, value in dict(n_epochs=3, lr=0.2, wd=0.1).items():
        with pytest.raises(ValueError, match=f'{name}=.*not {value}'):
            make(Checkpoint(tmp_path)).fit(**{name: value}, resume=tmp_path)
    make(Checkpoint(tmp_path)).fit(N_EPOCHS, lr=0.1, resume=tmp_path)

def test_a_missing_callback_is_named(tmp_path):
    checkpoint(tmp_path, EMA())
    with pytest.raises(ValueError, match='EMA'): make(Checkpoint(tmp_path)).fit(resume=tmp_path)

def test_another_model_is_refused(tmp_path):
    checkpoint(tmp_path)
    learn = make(Checkpoint(tmp_path), model=nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r'ckpt is of another model: \S*weight is .*missing here'):
        learn.fit(resume=tmp_path)

def test_another_optimizer_is_refused(tmp_path):
    checkpoint(tmp_path)
    learn = make(Checkpoint(tmp_path), opt_func=torch.optim.SGD)
    with pytest.raises(ValueError, match='ckpt was written with AdamW, this learner has SGD'):
        learn.fit(resume=tmp_path)

def test_where_there_is_no_checkpoint_a_sentence_says_so(tmp_path):
    for path in tmp_path, tmp_path/'no.ckpt':
        with pytest.raises(FileNotFoundError, match='no checkpoint'): make().fit(resume=path)

def test_a_learner_that_refused_to_resume_is_as_it_was(tmp_path):
    checkpoint(tmp_path, EMA())
    learn = make()
    with pytest.raises(ValueError): learn.fit(resume=tmp_path)
    assert_same_weights(learn, make())

class Refuses(Callback):
    def state_dict(self): return {'kind': 1}
    def load_state_dict(self, state): raise ValueError('not mine')

class Accepts(Refuses):
    def load_state_dict(self, state): pass
Accepts.__name__ = 'Refuses'   # by which a checkpoint knows it

@pytest.mark.parametrize('cb, splitter', [(Refuses, None), (Accepts, lambda m: [m[0], m[1:]])],
                         ids=['callback', 'groups'])
def test_a_learner_that_refuses_late_keeps_its_weights_and_its_table(cb, splitter, tmp_path):
    table = tmp_path/'history.csv'
    make(Refuses(), CSVLogger(table), Checkpoint(tmp_path)).fit(1, lr=0.1)
    make(CSVLogger(table, append=True)).fit(2)
    rows = table.read_text()
    change = lambda: make(cb(), CSVLogger(table), Checkpoint(tmp_path), splitter=splitter)
    learn = change()
    with pytest.raises(ValueError, match='not mine|does not fit this learner'): learn.fit(resume=tmp_path)
    assert_same_weights(learn, change())
    assert table.read_text() == rows

def test_other_metrics_are_refused(tmp_path):
    checkpoint(tmp_path)
    learn = make(Checkpoint(tmp_path))
    learn.metrics = []
    with pytest.raises(ValueError, match='have train_loss, valid_loss, accuracy, and this fit gives train_loss, valid'):
        learn.fit(resume=tmp_path)

def test_the_best_value_of_another_column_is_forgotten(tmp_path):
    with pytest.raises(RuntimeError): make(Checkpoint(tmp_path, 'accuracy'), Stop('after_batch', 1, 2)).fit(N_EPOCHS)
    (tmp_path/'best.safetensors').unlink()
    learn = make(Checkpoint(tmp_path, 'valid_loss')).fit(resume=tmp_path)
    assert (tmp_path/'best.safetensors').exists() and learn.cb(Checkpoint).best == values(learn)[-1]['valid_loss']

class Payload:
    def __init__(self, path): self.path = path
    def __reduce__(self): return Path.touch, (Path(self.path),)

def save_pickle(o, path): path.write_bytes(pickle.dumps(o))

@pytest.mark.parametrize('write', [torch.save, save_pickle])
@pytest.mark.parametrize('nested', [False, True])
def test_code_in_a_file_does_not_run(write, nested, tmp_path):
    hostile, ran = tmp_path/'bad.ckpt', tmp_path/'ran'
    payload = Payload(str(ran))
    write(read_checkpoint(checkpoint(tmp_path/'good')) | {'extra': payload} if nested else payload, hostile)
    with pytest.raises(ValueError, match='bad.ckpt'): make().fit(resume=hostile)
    with pytest.raises(ValueError, match='bad.ckpt'): make().load(hostile)
    assert not ran.exists()

@pytest.mark.parametrize('part', [0., 0.1, 0.5, 0.99])
def test_a_cut_off_file_is_a_sentence(part, tmp_path):
    good = checkpoint(tmp_path/'good').read_bytes()
    (tmp_path/'cut.ckpt').write_bytes(good[:int(len(good)*part)])
    with pytest.raises(ValueError, match='cut.ckpt is damaged'): make().fit(resume=tmp_path/'cut.ckpt')
    make().save(tmp_path/'model')
    good = (tmp_path/'model').read_bytes()
    (tmp_path/'model').write_bytes(good[:int(len(good)*part)])
    with pytest.raises(ValueError, match='model'): make().load(tmp_path/'model')

def test_some_other_file_is_no_checkpoint(tmp_path):
    torch.save({'a': torch.zeros(2)}, tmp_path/'x.ckpt')
    with pytest.raises(ValueError, match='no checkpoint'): make().fit(resume=tmp_path/'x.ckpt')


# ---- the checkpoints' folder

def names(folder): return sorted(p.name for p in folder.iterdir())

def test_the_newest_are_kept_and_the_best_weights(tmp_path):
    learn = make(Checkpoint(tmp_path, keep=2, every=2)).fit(N_EPOCHS)
    assert names(tmp_path) == ['best.safetensors', 'e00001_b00000004.ckpt', 'e00002_b00000000.ckpt']

def test_the_best_weights_are_those_of_the_best_epoch(tmp_path):
    best = {}
    class Watch(Callback):
        order = 91
        def after_validate(self, learn):
            best[float(learn.recorder.row['valid_loss'])] = copy.deepcopy(learn.model.state_dict())
    make(Checkpoint(tmp_path), EMA(0.5), Watch(), lr=0.3).fit(5)   # with EMA: the averages, which were validated
    saved = make().load(tmp_path/'best.safetensors').model.state_dict()
    for name, t in best[min(best)].items(): assert torch.equal(t, saved[name])

def test_a_second_fit_in_the_same_folder_keeps_its_own_checkpoints(tmp_path):
    make(Checkpoint(tmp_path)).fit(3)
    learn = make(Checkpoint(tmp_path), lr=0.01)
    learn.fit(N_EPOCHS)
    state = read_checkpoint(tmp_path)
    assert state['fit']['n_epochs'] == N_EPOCHS and state['epoch'] == N_EPOCHS
    assert torch.equal(state['model']['0.weight'], learn.model[0].weight)

def test_half_a_window_of_accumulated_gradients_is_never_checkpointed(tmp_path):
    class Look(Callback):
        order = 91
        def after_batch(self, learn):
            found = read_checkpoint(tmp_path)['batch'] if list(tmp_path.glob('*.ckpt')) else 0
            if learn.training and learn.epoch == 0: assert found == (learn.iter + 1)//2*2 or learn.iter == 4
    make(GradientAccumulation(2), Checkpoint(tmp_path, every=1), Look()).fit(1)

@pytest.mark.filterwarnings('ignore:The loss is not finite')
def test_a_fit_that_ends_with_nan_keeps_the_checkpoint_before(tmp_path):
    class Spoil(Callback):
        def before_batch(self, learn):
            if learn.training and (learn.epoch, learn.iter) == (1, 2): learn.xb = learn.xb * float('nan')
    make(Checkpoint(tmp_path), TerminateOnNaN(1), Spoil()).fit(4)
    state = read_checkpoint(tmp_path)
    assert (state['epoch'], state['batch']) == (1, 0)
    assert all(t.isfinite().all() for t in state['model'].values())

def big(*cbs):
    torch.manual_seed(1)
    return make(*cbs, model=nn.Sequential(nn.Linear(4, 4000), nn.Linear(4000, 3)))

def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_half_written(tmp_path):
    with pytest.raises(RuntimeError): big(Checkpoint(tmp_path), Stop('after_batch', 1, 2)).fit(N_EPOCHS)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    learn = big(Checkpoint(tmp_path, monitor=None))
    with no_file_over(100_000), pytest.raises(OSError, match='(?s)ckpt.*(disk|space|written)'):
        learn.fit(resume=tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert_same_weights(big().fit(N_EPOCHS), big(Checkpoint(tmp_path)).fit(resume=tmp_path))
    learn.fit(1)   # and it can go on

def test_a_full_disk_while_saving_leaves_the_old_file(tmp_path):
    old, new = big(), big()
    old.save(tmp_path/'m')
    new.model[0].weight.data += 1
    with no_file_over(30_000), pytest.raises(OSError, match='(?s)m.*(disk|space|written)'): new.save(tmp_path/'m')
    assert names(tmp_path) == ['m']
    assert_same_weights(new.load(tmp_path/'m'), old)

@pytest.mark.parametrize('write', ['save', 'export'])
def test_a_written_file_may_be_read_by_whom_a_new_file_may_be_read(write, tmp_path):
    (tmp_path/'any').touch()
    getattr(big(), write)(tmp_path/'m')
    assert (tmp_path/'m').stat().st_mode == (tmp_path/'any').stat().st_mode

@pytest.mark.parametrize('older', [False, True])
def test_each_epoch_stands_once_in_the_csv_file_of_a_resumed_run(older, tmp_path):
    logged = lambda *more: make(CSVLogger(tmp_path/'h.csv'), Checkpoint(tmp_path, every=2, keep=9), *more)
    with pytest.raises(RuntimeError): logged(Stop('after_batch', 2, 1)).fit(4)
    learn = logged().fit(resume=tmp_path/'e00001_b00000002.ckpt' if older else tmp_path)
    rows = list(csv.DictReader(open(tmp_path/'h.csv')))
    assert [r['epoch'] for r in rows] == list('0123')
    assert [float(r['valid_loss']) for r in rows] == [v['valid_loss'] for v in values(learn)]


# ---- saving and loading weights

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.out = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
        self.out.weight = self.emb.weight

def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    a, b = Learner(Tied(), default_cbs=False), Learner(Tied(), default_cbs=False)
    a.save(tmp_path/'m')
    assert len(load_file(tmp_path/'m')) == 1
    b.load(tmp_path/'m')
    assert_same_weights(a, b)
    assert b.model.out.weight is b.model.emb.weight

def test_weights_that_are_views_are_saved_whole(tmp_path):
    model = nn.Linear(3, 4)
    base = torch.randn(3, 8)
    model.weight.data = base.t()[:4]      # neither contiguous nor alone in its memory
    model.bias.data = base[0, :4]
    learn = Learner(model, default_cbs=False)
    learn.save(tmp_path/'m')
    assert (tmp_path/'m').stat().st_size < 400
    again = Learner(nn.Linear(3, 4), default_cbs=False).load(tmp_path/'m')
    assert_same_weights(learn, again)

def momentum(params, **kw): return torch.optim.SGD(params, momentum=0.9, **kw)

@pytest.mark.parametrize('opt_func', [torch.optim.AdamW, torch.optim.SGD, momentum, torch.optim.RMSprop])
def test_with_its_optimizer_a_model_trains_on_as_if_it_had_not_been_saved(opt_func, tmp_path):
    learn = make(opt_func=opt_func, lr=0.01).fit(1)
    learn.save(tmp_path/'m', with_opt=True)
    again = make(opt_func=opt_func, lr=0.01).load(tmp_path/'m', with_opt=True)
    for l in learn, again:
        torch.manual_seed(5)
        l.fit(1)
    assert_same_weights(learn, again)
    plain = make().load(tmp_path/'m')   # and without it
    assert plain.opt is None

def test_the_memory_of_another_optimizer_is_refused_and_changes_nothing(tmp_path):
    make(opt_func=torch.optim.SGD).fit(1).save(tmp_path/'m', with_opt=True)
    learn = make(opt_func=torch.optim.AdamW)
    with pytest.raises(ValueError, match='m was saved with SGD, this learner has AdamW'):
        learn.load(tmp_path/'m', with_opt=True)
    assert_same_weights(learn, make())

def test_the_memory_of_other_groups_is_refused_with_the_name_of_the_file(tmp_path):
    make().fit(1).save(tmp_path/'m', with_opt=True)
    learn = make(splitter=lambda m: [[p] for p in m.parameters()])
    with pytest.raises(ValueError, match="m does not fit this learner's AdamW"):
        learn.load(tmp_path/'m', with_opt=True)
    assert_same_weights(learn, make())

def test_weights_that_do_not_fit_change_nothing(tmp_path):
    make().fit(1).save(tmp_path/'m')
    other = lambda: make(model=nn.Sequential(*list(net())[:-1], nn.Linear(net()[-1].in_features, 7)))
    learn = other()
    with pytest.raises(RuntimeError, match='m does not fit this model'): learn.load(tmp_path/'m')
    assert_same_weights(learn, other())

def test_loading_what_is_not_there_is_a_sentence(tmp_path):
    learn = make()
    with pytest.raises(ValueError, match='no optimizer'): learn.save(tmp_path/'m', with_opt=True)
    assert not (tmp_path/'m').exists()
    learn.save(tmp_path/'m')
    with pytest.raises(ValueError, match='no optimizer'): make().load(tmp_path/'m', with_opt=True)
    with pytest.raises(FileNotFoundError): make().load(tmp_path/'other')
    with pytest.raises(RuntimeError, match='Missing key'): make(model=nn.Linear(2, 2)).load(tmp_path/'m')
    (tmp_path/'text').write_text('hello')
    with pytest.raises(ValueError, match='safetensors'): make().load(tmp_path/'text')

def test_safetensors_from_elsewhere_are_loaded(tmp_path):
    model = net()
    save_file(model.state_dict(), tmp_path/'m')
    learn = make().load(tmp_path/'m')
    for a, b in zip(learn.model.state_dict().values(), model.state_dict().values()): assert torch.equal(a, b)

def test_a_safetensors_file_tells_its_own_aliases(tmp_path):
    Learner(Tied(), default_cbs=False).save(tmp_path/'m')
    tensors, info = read_tensors(tmp_path/'m')
    assert set(tensors) == {'emb.weight', 'out.weight'} and info is None
