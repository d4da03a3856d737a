"The text samples: the entropy beside the articles is the source's own, and the reviews need more than single words."
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from minidl.datasets import get_data, set_seed

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'data'))

import text_samples  # noqa: E402


# Articles whose entropy is known

@pytest.fixture(scope='module')
def wiki():
    path = get_data('wikitext')
    read = lambda part: text_samples.tokenize((path/f'{part}.txt').read_text(encoding='utf-8'))
    return read('train'), read('test'), json.loads((path/'entropy.json').read_text())


def test_the_entropy_beside_the_articles_is_what_a_reader_of_the_text_alone_computes(wiki):
    _, test, said = wiki
    nats = list(text_samples.surprisals(text_samples.Grammar(), test))
    assert len(nats) == said['tokens_test']
    assert math.fsum(nats)/len(nats) == pytest.approx(said['entropy_nats_per_token'], abs=1e-6)
    assert said['perplexity'] == pytest.approx(math.exp(said['entropy_nats_per_token']), rel=1e-4)


def test_the_probabilities_of_all_next_words_sum_to_one(wiki):
    grammar, (_, test, _) = text_samples.Grammar(), wiki
    readings = [(1., ('{text}',), {})]
    for word in test[:60]:
        found = text_samples.next_words(grammar, readings, None)
        assert sum(p for rs in found.values() for p, *_ in rs) == pytest.approx(1)
        total = sum(p for p, *_ in found[word])
        readings = [(p/total, stack, facts) for p, stack, facts in found[word]]


def test_counting_words_and_pairs_stays_above_the_entropy(wiki):
    train, test, said = wiki
    words, pairs, starts = Counter(train), Counter(zip(train, train[1:])), Counter(train[:-1])
    n, k = len(train), len(words) + 1
    one = lambda w: (words[w] + 0.1)/(n + 0.1*k)
    two = lambda v, w: 0.9*pairs[v, w]/starts[v] + 0.1*one(w) if starts[v] else one(w)
    unigram = -sum(math.log(one(w)) for w in test)/len(test)
    bigram = -sum(math.log(two(v, w)) for v, w in zip(test, test[1:]))/(len(test) - 1)
    assert unigram > bigram + 1 > said['entropy_nats_per_token'] + 1.3


def test_the_articles_look_like_wikitext(wiki):
    train, test, _ = wiki
    text = (get_data('wikitext')/'train.txt').read_text(encoding='utf-8')
    assert re.search(r'^ = [^=]+ = $', text, re.M) and '<unk>' not in text
    assert len(train) > 100_000 and len(test) > 15_000 and len(set(train)) > 1500


# Reviews

@pytest.fixture(scope='module')
def reviews():
    path = get_data('imdb')
    files = {part: [(p, label) for label, side in enumerate(('neg', 'pos')) for p in sorted((path/part/side).iterdir())]
             for part in ('train', 'test')}
    return {part: [(p.read_text(encoding='utf-8'), label) for p, label in rows] for part, rows in files.items()}


def bag_accuracy(reviews, n_gram):
    "Test accuracy of a logistic regression on which n-grams up to `n_gram` a review holds."
    def grams(text):
        words = re.findall(r"[a-z']+", re.sub('<[^>]*>', ' ', text.lower()))
        return {' '.join(words[i:i+n]) for n in range(1, n_gram + 1) for i in range(len(words) - n + 1)}
    bags = {part: [grams(text) for text, _ in rows] for part, rows in reviews.items()}
    counts = Counter(g for bag in bags['train'] for g in bag)
    index = {g: i for i, g in enumerate(sorted(g for g, c in counts.items() if c > 2))}

    def matrix(part):
        x = torch.zeros(len(bags[part]), len(index))
        for row, bag in zip(x, bags[part]): row[[index[g] for g in bag if g in index]] = 1.
        return F.normalize(x)
    y = {part: torch.tensor([float(label) for _, label in rows]) for part, rows in reviews.items()}
    set_seed(0)
    x, model = matrix('train'), torch.nn.Linear(len(index), 1)
    opt = torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=1e-5)
    for _ in range(60):
        opt.zero_grad()
        F.binary_cross_entropy_with_logits(model(x)[:, 0], y['train']).backward()
        opt.step()
    with torch.no_grad(): return ((model(matrix('test'))[:, 0] > 0) == y['test'].bool()).float().mean().item()


def test_single_words_do_not_tell_what_a_review_thinks_and_their_order_helps(reviews):
    words, phrases = bag_accuracy(reviews, 1), bag_accuracy(reviews, 3)
    print(f'single words {words:.3f}, up to three {phrases:.3f}')
    assert 0.6 < words < 0.9 and phrases > words + 0.04


def test_the_reviews_are_as_dirty_as_real_ones(reviews):
    text = ' '.join(t for t, _ in reviews['train'])
    for dirt in (r'<br />', r'\b[A-Z]{4,}\b', r'([a-z])\1{3,}', r'\b(\w+) \1 \1\b', r'&\w+;|&#\d+;', r'\d+/10', '  '):
        assert re.search(dirt, text), dirt


def test_files_are_named_as_in_imdb():
    path = get_data('imdb')
    for part in ('train/pos', 'train/neg', 'test/pos', 'test/neg', 'unsup'):
        names = [p.name for p in (path/part).iterdir()]
        assert len(names) >= 150 and all(re.fullmatch(r'\d+_\d+\.txt', n) for n in names)
