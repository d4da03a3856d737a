"""What holds for any numbers: samplers give every index once, collating loses nothing, schedules are where they should
be.

Properties that are proven elsewhere: `EpochBatches` in test_training, the stream of a language model, `Ragged` and the
order of `LengthBatches` in test_text, single and combined schedules in test_schedule, processors of labels and splits
in test_data."""
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from minidl.data import EpochPairs, collate_items
from minidl.scale import RankBatches
from minidl.schedule import (combine_scheds, create_phases, sched_1cycle, sched_cos, sched_exp, sched_lin, sched_no,
                             sched_poly)
from minidl.text import PAD_ID, LengthBatches, LMLoader, pad_collate
from minidl.training import EpochBatches


SIZES = dict(n=st.integers(1, 80), bs=st.integers(1, 20), shuffle=st.booleans(), seed=st.integers(0, 2**40),
             epoch=st.integers(0, 10**6))

def sampler(kind, n, bs, shuffle, drop_last, seed):
    if kind == 'lengths': return LengthBatches([i*7 % 11 for i in range(n)], bs, shuffle, drop_last, seed)
    return dict(batches=EpochBatches, pairs=EpochPairs)[kind](n, bs, shuffle, drop_last, seed)

def indices(batch): return [i[1] if isinstance(i, tuple) else int(i) for i in batch]

@pytest.mark.parametrize('kind', ['pairs', 'lengths'])
@settings(max_examples=50)
@given(**SIZES, drop_last=st.booleans())
def test_a_sampler_gives_every_index_once_in_batches_of_bs(kind, n, bs, shuffle, seed, epoch, drop_last):
    drop_last = drop_last and n >= bs
    s = sampler(kind, n, bs, shuffle, drop_last, seed)
    s.set_epoch(epoch)
    batches = list(s)
    seen = [i for b in batches for i in indices(b)]
    assert len(batches) == len(s) and len(seen) == len(set(seen)) and set(seen) <= set(range(n))
    assert len(seen) == (n//bs*bs if drop_last else n) and all(len(b) == bs for b in batches[:-1])
    assert all(i[0] == epoch for b in batches for i in b)       # each is a pair (epoch, index)
    assert (s.epoch, s.skip) == (epoch + 1, 0)

@pytest.mark.parametrize('kind', ['pairs', 'lengths', 'share'])
@settings(max_examples=40)
@given(**SIZES, data=st.data())
def test_skipping_gives_the_rest_of_the_epoch(kind, n, bs, shuffle, seed, epoch, data):
    if kind == 'share': s = RankBatches(EpochBatches(n, bs, shuffle, seed=seed), 1, 2)
    else: s = sampler(kind, n, bs, shuffle, False, seed)
    s.set_epoch(epoch)
    whole = list(s)
    skip = data.draw(st.integers(0, len(s)))
    s.set_epoch(epoch, skip)
    assert list(s) == whole[skip:]

@pytest.mark.parametrize('kind', ['batches', 'pairs', 'lengths'])
@settings(max_examples=40)
@given(**SIZES, n_ranks=st.integers(1, 4))
def test_the_shares_of_all_processes_are_the_whole_and_an_index_is_in_one_of_them(kind, n, bs, shuffle, seed, epoch,
                                                                                  n_ranks):
    shares = [RankBatches(sampler(kind, n, bs, shuffle, False, seed), r, n_ranks) for r in range(n_ranks)]
    for s in shares: s.set_epoch(epoch)
    seen = []
    for i, parts in enumerate(zip(*shares, strict=True)):
        assert all(1 <= len(p) <= bs for p in parts)
        # what is beyond counts for nothing
        seen += [j for s, p in zip(shares, parts) for j in indices(p)[:s.sizes(i)[1]]]
    assert sorted(seen) == list(range(n))

TEXTS = st.lists(st.lists(st.integers(2, 99), max_size=12), min_size=1, max_size=8)

@settings(max_examples=80)
@given(texts=TEXTS, pad_first=st.booleans(), pad_idx=st.sampled_from([PAD_ID, 0]), labeled=st.booleans())
def test_padding_adds_pads_on_one_side_and_changes_nothing_else(texts, pad_first, pad_idx, labeled):
    samples = [(torch.tensor(t, dtype=torch.int64), *([i] if labeled else [])) for i, t in enumerate(texts)]
    (ids, lengths), *targets = pad_collate(samples, pad_idx, pad_first)
    assert ids.dtype == torch.int64 and ids.shape == (len(texts), max(map(len, texts)))
    assert lengths.tolist() == [len(t) for t in texts]
    for row, t in zip(ids.tolist(), texts):
        pads = [pad_idx]*(len(row) - len(t))
        assert row == (pads + t if pad_first else t + pads)
    assert [t.tolist() for t in targets] == ([list(range(len(texts)))] if labeled else [])

@settings(max_examples=40)
@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), n=st.integers(1, 5),
       other=st.integers(0, 4), data=st.data())
def test_items_of_one_size_are_stacked_and_of_two_sizes_refused_with_both(shape, n, other, data):
    items = [(torch.full(shape, float(i)), i) for i in range(n)]
    xb, yb = collate_items(items)
    assert xb.shape == (n, *shape) and yb.tolist() == list(range(n))
    assert all(torch.equal(a, b) for a, (b, _) in zip(xb, items))
    taller = (shape[0], shape[1] + 1, shape[2])
    with pytest.raises(ValueError, match=' and '.join('x'.join(map(str, s)) for s in (shape, taller))):
        collate_items([*items, (torch.zeros(taller), 0)])

@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 99), max_size=12), min_size=1, max_size=12), st.integers(1, 5),
       st.integers(1, 7), st.integers(0, 10**6))
def test_in_any_epoch_of_the_stream_each_token_but_the_first_is_a_target_once(texts, bs, bptt, epoch):
    try: dl = LMLoader(texts, bs, bptt, shuffle=True)
    except ValueError as e:
        assert 'too few' in str(e)
        return
    dl.set_epoch(epoch)
    first = [t for i in dl.order(epoch).tolist() for t in texts[i]][0]
    targets = sorted(int(t) for _, y in dl for t in y.flatten())
    assert sorted([first, *targets]) == sorted(t for text in texts for t in text)

FAMILIES = (sched_lin, sched_cos, sched_exp, lambda a, b: sched_poly(a, b, power=3),
            lambda a, b: sched_poly(a, b, power=0.7))
RATES = st.floats(1e-6, 10.)

@settings(max_examples=60)
@given(shares=st.lists(st.integers(1, 20), min_size=1, max_size=5), rates=st.lists(RATES, min_size=6, max_size=6),
       kinds=st.lists(st.sampled_from(range(len(FAMILIES))), min_size=5, max_size=5), pos=st.floats(0, 1))
def test_schedules_one_after_the_other_are_continuous_and_in_range(shares, rates, kinds, pos):
    pcts, k = [s/sum(shares) for s in shares], len(shares)
    whole = combine_scheds(pcts, [FAMILIES[kinds[i]](rates[i], rates[i + 1]) for i in range(k)])
    close = lambda a, b: math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    assert close(whole(0.), rates[0]) and close(whole(1.), rates[k])
    assert min(rates[:k + 1])*(1 - 1e-9) <= whole(pos) <= max(rates[:k + 1])*(1 + 1e-9)
    for i in range(1, k):
        border = math.fsum(pcts[:i])
        for side in math.nextafter(border, 0), border, math.nextafter(border, 1): assert close(whole(side), rates[i])

@settings(max_examples=60)
@given(lr=RATES, pct=st.floats(0, 1), div=st.floats(1, 1e3), div_final=st.floats(1, 1e6), pos=st.floats(0, 1))
def test_one_cycle_begins_rises_and_ends_where_it_is_told(lr, pct, div, div_final, pos):
    rate, mom = (cb.sched for cb in sched_1cycle(lr, pct, div, div_final))
    close = lambda a, b: math.isclose(a, b, rel_tol=1e-6)
    assert close(rate(1.), lr/div_final) and (pct == 1 or close(rate(pct), lr))
    assert (pct == 0 or close(rate(0.), lr/div))
    assert min(lr/div, lr/div_final)*(1 - 1e-9) <= rate(pos) <= lr*(1 + 1e-9) and 0.85 - 1e-9 <= mom(pos) <= 0.95 + 1e-9

@settings(max_examples=60)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(sum))
def test_the_share_that_is_left_out_is_found(shares):
    pcts = [s/sum(shares) for s in shares]
    again = create_phases(pcts[:-1])
    assert again == pytest.approx(pcts, abs=1e-9) and min(again) >= 0
    combine_scheds(again, [sched_no(1., 1.)]*len(again))
