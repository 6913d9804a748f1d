"""Runs what docs/how-embeddings-learn.md says: asserts each claim, prints its numbers, draws its pictures.

python docs/how_embeddings_learn.py                                  what the layer computes and what trains it: seconds
python docs/how_embeddings_learn.py --headlines FILE --corpus FILE   all of it: minutes
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # batches are small; and skip-gram on one thread can be repeated

import keras
import numpy as np
from keras.layers import Dense, Flatten, GlobalAveragePooling1D
from numpy.typing import NDArray
from tqdm import tqdm

import hotrow
from hotrow import Word2Vec, WordVectors, text
from hotrow.keras import Embedding

Array = NDArray[Any]

# --- what the layer computes ------------------------------------------------------------------------------------------


def equal_ids() -> None:
    """Equal ids, equal vectors; an output depends on the row of its id and on nothing else."""
    model = keras.Sequential([Embedding(5, 2)])
    model.compile("rmsprop", "mse")
    output = model.predict(np.array([[4, 1, 3, 3, 3]]), verbose=0)
    print(output.round(3))

    (table,) = model.layers[0].get_weights()
    assert np.abs(table).max() < 0.05
    assert np.array_equal(output, table[[[4, 1, 3, 3, 3]]])
    assert np.array_equal(output[0, 2], output[0, 3])
    assert np.array_equal(output[0, 2], output[0, 4])

    table[3] = table[4]
    model.layers[0].set_weights([table])
    output = model.predict(np.array([[4, 1, 3, 3, 3]]), verbose=0)
    assert np.array_equal(output[0, 0], output[0, 2])
    assert np.array_equal(model.layers[0].get_weights()[0], table), "predict trains nothing"


def numbered(sentences: list[str]) -> tuple[dict[str, int], Array]:
    """Ids by first appearance, and the sentences in ids."""
    words = [sentence.lower().split() for sentence in sentences]
    index: dict[str, int] = {}
    for word in chain(*words):
        index.setdefault(word, len(index))
    return index, np.array([[index[word] for word in sentence] for sentence in words])


SENTENCES = ["Hope to see you soon", "Nice to see you again"]


def two_sentences() -> None:
    """A table of seven rows; the one-hot product is the row."""
    index, ids = numbered(SENTENCES)
    print(index, ids.tolist(), sep="\n")
    assert ids.tolist() == [[0, 1, 2, 3, 4], [5, 1, 2, 3, 6]]

    layer = Embedding(7, 2)
    output = keras.ops.convert_to_numpy(layer(ids))
    (table,) = layer.get_weights()
    one_hot = np.eye(7, dtype="float32")[index["soon"]]
    print(one_hot, "@ table =", one_hot @ table)
    assert table.shape == (7, 2)
    assert np.array_equal(one_hot @ table, table[4])
    assert np.array_equal(output[0, 4], table[4])
    assert np.array_equal(output, hotrow.gather(table, ids.ravel()).reshape(2, 5, 2))
    assert np.array_equal(output[0, 1:4], output[1, 1:4])


# --- what trains it ---------------------------------------------------------------------------------------------------


def one_step(ids: Array, labels: list[list[int]]) -> tuple[Array, Array, Array, Array]:
    """Output, table, its gradient, and the kernel of Dense, before a step of SGD whose rate is 1."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential([Embedding(7, 2), GlobalAveragePooling1D(), Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(1.0), "binary_crossentropy")
    output = model.predict(ids, verbose=0)
    table, kernel, _ = model.get_weights()
    model.train_on_batch(ids, np.array(labels))
    gradient = table - model.get_weights()[0]
    return output, table, gradient, kernel[:, 0]


def two_labellings() -> dict[str, Array]:
    """Same ids, other labels: same output, another gradient. A row that is not looked up has none."""
    index, ids = numbered(SENTENCES)
    output, table, gradient, kernel = one_step(ids, [[1], [0]])
    other_output, other_table, other_gradient, _ = one_step(ids, [[0], [1]])
    assert np.array_equal(output, other_output)
    assert np.array_equal(table, other_table)
    assert np.all(np.sign(gradient[[0, 4, 5, 6]]) == -np.sign(other_gradient[[0, 4, 5, 6]]))
    print("outputs", output.ravel().round(3), "\n       labels 1, 0         labels 0, 1")
    for word, row in index.items():
        print(f"{word:5} {gradient[row].round(4)!s:19} {other_gradient[row].round(4)}")

    # d loss / d row: each of its lookups is 1 / 5 of a mean, each sentence 1 / 2 of the loss.
    lookups = np.array([np.bincount(sentence, minlength=7) for sentence in ids])
    error = output - [[1], [0]]
    np.testing.assert_allclose(gradient, lookups.T @ error / 2 / 5 * kernel, atol=1e-6)
    assert np.abs(gradient[1:4]).max() < 0.1 * np.abs(gradient[[0, 4, 5, 6]]).min(), "two pulls that nearly cancel"

    _, _, gradient_of_first, _ = one_step(ids[:1], [[1]])
    assert np.all(gradient_of_first[:5] != 0)
    assert np.all(gradient_of_first[5:] == 0)
    return {"table": table, "labels 1, 0": gradient, "labels 0, 1": other_gradient}


def order() -> None:
    """The layer does not see the order of ids, nor does a mean; a Dense on all places does."""
    _, ids = numbered(SENTENCES)
    reversed_ids = ids[:, ::-1].copy()
    layer = Embedding(7, 2)
    rows = layer(ids)
    reversed_rows = layer(reversed_ids)
    assert np.array_equal(keras.ops.convert_to_numpy(rows)[:, ::-1], keras.ops.convert_to_numpy(reversed_rows))

    for pooling in (GlobalAveragePooling1D(), Flatten()):
        follows = keras.Sequential([pooling, Dense(1)])
        difference = np.abs(keras.ops.convert_to_numpy(follows(rows) - follows(reversed_rows))).max()
        print(f"{type(pooling).__name__}: the outputs of the two orders differ by {difference:.3f}")
        assert difference > 1e-3 if isinstance(pooling, Flatten) else difference < 1e-6


def skip_gram_pair() -> None:
    """word2vec trains such a table too: a neighbour is label 1, a word drawn at random is label 0."""
    index, _ = numbered(SENTENCES)
    table, out_table = np.random.default_rng(0).normal(size=(2, 7, 2))
    before = table.copy()
    row, answers = before[index["see"]], out_table[[index["you"], index["nice"]]]
    hotrow.skipgram_step(table, out_table, [index["see"]], [index["you"]], [[index["nice"]]], lr=1.0)
    gradient = before - table

    error = 1 / (1 + np.exp(-answers @ row)) - [1, 0]
    np.testing.assert_allclose(gradient[index["see"]], error @ answers, atol=1e-6)
    assert np.count_nonzero(gradient.any(1)) == 1


# --- headlines: from scratch, frozen, fine-tuned ----------------------------------------------------------------------

SIZE, LENGTH, BATCH, STEPS, SEEDS = 64, 20, 64, 300, 5
SAMPLES = (50, 150, 500, 1500, 4000)
FAST, SLOW = 0.01, 0.001


def read_headlines(path: str) -> tuple[list[list[str]], Array]:
    """Words and labels; a line is a label, a tab, a text."""
    with text.open_text(path) as lines:
        pairs = [line.rstrip("\n").split("\t") for line in lines]
    return [text.tokenize(headline) for _, headline in pairs], np.array([[int(label)] for label, _ in pairs])


def encoded(headlines: list[list[str]], vocabulary: list[str]) -> Array:
    """int32[N, LENGTH]: 0 is padding, the row of [UNK] for other words."""
    row = {word: i for i, word in enumerate(vocabulary)}
    ids = np.zeros((len(headlines), LENGTH), np.int32)
    for place, headline in zip(ids, headlines, strict=True):
        known = [row.get(word, row["[UNK]"]) for word in headline[:LENGTH]]
        place[: len(known)] = known
    return ids


def adam(rate: float) -> dict[str, Any]:
    return {"name": "Adam", "lr": rate}


def layers(vocabulary: list[str], vectors: WordVectors) -> dict[str, Embedding]:
    tuned = {"trainable": True, "mask_zero": True}
    return {
        "from scratch": Embedding(len(vocabulary), SIZE, mask_zero=True, optimizer=adam(FAST)),
        "frozen": Embedding.from_word_vectors(vectors, vocabulary, mask_zero=True),
        "fine-tuned": Embedding.from_word_vectors(vectors, vocabulary, optimizer=adam(SLOW), **tuned),
        "fine-tuned, rate of scratch": Embedding.from_word_vectors(vectors, vocabulary, optimizer=adam(FAST), **tuned),
    }


def classifier(layer: Embedding) -> keras.Model:
    model = keras.Sequential([layer, GlobalAveragePooling1D(), Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.Adam(FAST), "binary_crossentropy", metrics=["accuracy"])
    return model


def accuracies(headlines: list[list[str]], labels: Array, vectors: WordVectors) -> dict[str, Array]:
    """float[SEEDS, len(SAMPLES)] of each layer, in per cent: on 1,000 headlines, after training on others."""
    result: dict[str, Array] = {}
    for seed in tqdm(range(SEEDS), "accuracy", disable=None):
        chosen = np.random.default_rng(seed).permutation(len(headlines))[:5000]
        some = [headlines[i] for i in chosen]
        vocabulary = ["", "[UNK]", *sorted(set(chain(*some)))]
        ids, truth = encoded(some, vocabulary), labels[chosen]
        for j, n in enumerate(SAMPLES):
            keras.utils.set_random_seed(seed)
            for name, layer in layers(vocabulary, vectors).items():
                model = classifier(layer)
                epochs = round(STEPS / np.ceil(n / BATCH))
                model.fit(ids[:n], truth[:n], batch_size=BATCH, epochs=epochs, verbose=0)
                _, accuracy = model.evaluate(ids[4000:], truth[4000:], batch_size=1000, verbose=0)
                result.setdefault(name, np.zeros((SEEDS, len(SAMPLES))))[seed, j] = 100 * accuracy
    words = ids[4000:][ids[4000:] > 0]
    seen = [f"{np.isin(words, ids[:n]).mean():.0%}" for n in SAMPLES]
    print(f"{np.mean([word in vectors for word in vocabulary]):.0%} of the vocabulary have vectors")
    print("words to judge by that are in the headlines to learn from:", *seen)
    return result


def check_accuracies(result: dict[str, Array]) -> None:
    print(f"{'headlines':28}" + "".join(f"{n:>12}" for n in SAMPLES))
    for name, runs in result.items():
        cells = zip(runs.mean(0), runs.std(0, ddof=1), strict=True)
        print(f"{name:28}" + "".join(f"{mean:6.1f} +-{spread:4.1f}" for mean, spread in cells))
    scratch, frozen, tuned, fast = (runs.mean(0) for runs in result.values())
    assert min(frozen[0], tuned[0]) > scratch[0] + 5, "few labels: pretrained vectors help"
    assert all(tuned[1:3] > np.maximum(scratch, frozen)[1:3] + 1), "more: they have to move"
    assert np.ptp([scratch, tuned, fast], axis=0)[3:].max() < 1, "many: no difference"
    assert frozen[-1] - frozen[1] < 2 < 5 < scratch[-1] - frozen[-1], "but for frozen ones, which stay behind"
    assert fast[0] < tuned[0] - 4, "with few labels a large rate spoils them"


# --- the same words under two losses ----------------------------------------------------------------------------------

TOPICS = {
    "countries": "iraq iran pakistan israel afghanistan russia",
    "numbers": "17 19 21 23 24 25",
    "sport": "league football cricket cup championship team",
    "crime": "police court murder prison arrested officers",
    "politicians": "obama bush clinton trump senate president",
    "food": "chocolate pizza cheese delicious recipes chicken",
    "relatives": "mom dad father mother kids sister",
}
SHOWN = ("pakistan", "23", "chocolate", "trump", "father")


def two_tables(headlines: list[list[str]], labels: Array) -> dict[str, WordVectors]:
    """A table that labels trained and one that skip-gram trained, of the same words of the same headlines."""
    skip_gram = Word2Vec(vector_size=32, epochs=40, alpha=0.05, threads=1).fit(headlines, bar=False).vectors
    vocabulary = ["", "[UNK]", *skip_gram.words]
    print(len(skip_gram), "words occur five times")
    keras.utils.set_random_seed(0)
    layer = Embedding(len(vocabulary), 32, mask_zero=True, optimizer=adam(FAST))
    classifier(layer).fit(encoded(headlines, vocabulary), labels, batch_size=256, epochs=3, verbose=0)
    return {"labels": WordVectors(skip_gram.words, layer.table[2:]), "skip-gram": skip_gram}


def shares(headlines: list[list[str]], labels: Array) -> dict[str, float]:
    """Of the headlines that a word is in, how many are clickbait; for words of at least 20."""
    all_of, clickbait = Counter[str](), Counter[str]()
    for headline, label in zip(headlines, labels.ravel(), strict=True):
        all_of.update(set(headline))
        clickbait.update(set(headline) if label else ())
    return {word: clickbait[word] / n for word, n in all_of.items() if n >= 20}


def principal(vectors: Array) -> tuple[Array, Array]:
    """The first two principal components, float[N, 2], and the shares of variance of all."""
    u, s, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    return u[:, :2] * s[:2], s**2 / np.sum(s**2)


def compare(tables: dict[str, WordVectors], share: dict[str, float]) -> dict[str, tuple[Array, Array]]:
    """Print neighbours and what they have in common, and return the maps."""
    topic = {word: name for name, words in TOPICS.items() for word in words.split()}
    words = list(topic)
    frequent = [word for word in tables["labels"].words if word in share]
    maps, measures = {}, {}
    for name, vectors in tables.items():
        common = WordVectors(frequent, vectors[frequent])
        near = {word: [other for other, _ in common.most_similar(word, topn=5)] for word in frequent}
        print(f"-- trained by {name}")
        for word in SHOWN:
            print(f"{word:9} {share[word]:.2f}:", ", ".join(f"{other} {share[other]:.2f}" for other in near[word]))
        apart = np.mean([abs(share[word] - share[other]) for word in frequent for other in near[word]])
        few = WordVectors(words, vectors[words])
        same_topic = np.mean([topic[word] == topic[few.most_similar(word, topn=1)[0][0]] for word in words])
        points, variance = principal(vectors[words])
        along = abs(np.corrcoef(points[:, 0], [share[word] for word in words])[0, 1])
        print(f"shares of a word and its neighbours: {apart:.2f} apart")
        print(f"words of the map whose nearest is of their topic: {same_topic:.0%}")
        print(f"axes have {variance[0]:.0%} and {variance[1]:.0%} of the variance; first and share: r = {along:.2f}")
        maps[name], measures[name] = (points, variance), (apart, same_topic, variance[0], along)
    by_chance = np.mean([abs(share[word] - share[other]) for word in frequent for other in frequent])
    print(f"shares of any two words: {by_chance:.2f} apart")
    (apart, same_topic, first, along), (apart_2, same_topic_2, first_2, along_2) = measures.values()
    assert max(apart, apart_2) < by_chance / 2
    assert same_topic < 0.5
    assert same_topic_2 > 0.9
    assert first > 0.9
    assert first_2 < 0.3
    assert min(along, along_2) > 0.85
    return maps


# --- pictures ---------------------------------------------------------------------------------------------------------


def draw_steps(directory: Path, steps: dict[str, Array]) -> None:
    from matplotlib import pyplot

    table, *gradients = steps.values()
    figure, panels = pyplot.subplots(1, 2, figsize=(8.4, 4), sharex=True, sharey=True, layout="constrained")
    for axes, name, gradient in zip(panels, list(steps)[1:], gradients, strict=True):
        axes.quiver(*table.T, *-gradient.T, angles="xy", scale_units="xy", scale=1, color="#c8501e", width=0.006)
        axes.plot(*table.T, "o", color="#3b6fb6")
        for word, row in numbered(SENTENCES)[0].items():
            axes.annotate(word, table[row], xytext=(5, 5), textcoords="offset points")
        axes.set(title=name, xlabel="component 1 of the row")
        axes.update_datalim(np.concatenate([table - gradients[0], table - gradients[1]]))
        axes.margins(0.1)
        axes.autoscale_view()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("component 2 of the row")
    figure.suptitle("One step of SGD, rate 1: same table, same ids, other labels")
    figure.savefig(directory / "embedding-steps.png", dpi=110)


def put_labels(axes: Any, words: list[str], points: Array) -> None:
    """Each word beside its point, where it covers no other word and the fewest points, if there is such a place."""
    pixels, boxes = axes.transData.transform(points), list[Any]()
    for word, point in zip(words, points, strict=True):
        tried = []
        for x, y in ((5, 3), (5, -9), (-5, 3), (-5, -9), (0, 7), (0, -14), (12, 9), (-12, 9), (12, -16), (-12, -16)):
            align = "left" if x > 0 else "right" if x < 0 else "center"
            label = axes.annotate(word, point, (x, y), textcoords="offset points", fontsize=9, ha=align)
            box = label.get_window_extent()
            tried.append((box.count_overlaps(boxes) * 10 + int(box.count_contains(pixels)), len(tried), label, box))
        _, place, _, box = min(tried, key=lambda attempt: attempt[:2])
        boxes.append(box)
        for _, other, label, _ in tried:
            if other != place:
                label.remove()


def draw_maps(directory: Path, maps: dict[str, tuple[Array, Array]], share: dict[str, float]) -> None:
    from matplotlib import pyplot

    words = " ".join(TOPICS.values()).split()
    figure, panels = pyplot.subplots(1, 2, figsize=(13, 6.5), layout="constrained")
    for axes, (name, (points, variance)) in zip(panels, maps.items(), strict=True):
        dots = axes.scatter(*points.T, c=[share[w] for w in words], cmap="coolwarm", vmin=0, vmax=1, s=45, zorder=2)
        axes.set(
            title=f"trained by {name}",
            xlabel=f"principal component 1 ({variance[0]:.0%} of the variance)",
            ylabel=f"principal component 2 ({variance[1]:.0%})",
        )
        axes.margins(0.08)
        axes.grid(alpha=0.3)
    figure.colorbar(dots, ax=panels, label="share of the headlines with the word that are clickbait", shrink=0.8)
    figure.canvas.draw()
    for axes, (points, _) in zip(panels, maps.values(), strict=True):
        put_labels(axes, words, points)
    figure.savefig(directory / "embedding-maps.png", dpi=80)


def draw_accuracies(directory: Path, result: dict[str, Array]) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
    colors = ("#3b6fb6", "#444444", "#c8501e", "#ecb48c")
    for i, ((name, runs), color) in enumerate(zip(result.items(), colors, strict=True)):
        beside = np.array(SAMPLES) * 1.03 ** (i - 1.5)  # bars of spread stay apart
        axes.errorbar(beside, runs.mean(0), runs.std(0, ddof=1), fmt="o-", color=color, capsize=3, label=name)
    axes.set(
        xscale="log",
        xticks=SAMPLES,
        xticklabels=SAMPLES,
        xlabel="headlines to learn from",
        ylabel="accuracy on 1,000 other headlines, %",
        title=f"Mean and standard deviation of {SEEDS} draws",
    )
    axes.minorticks_off()
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(directory / "embedding-accuracy.png", dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headlines", help="label (1: clickbait), tab, headline a line; .gz and .xz are unpacked")
    parser.add_argument("--corpus", help="text for pretrained vectors, a sentence a line; a few million words")
    parser.add_argument("--pictures", type=Path, help="a directory to draw into (needs matplotlib); default: none")
    options = parser.parse_args()
    print("Keras", keras.__version__, "on", keras.backend.backend())
    keras.utils.set_random_seed(1)
    equal_ids()
    two_sentences()
    steps = two_labellings()
    order()
    skip_gram_pair()
    if options.pictures:
        draw_steps(options.pictures, steps)
    if not (options.headlines and options.corpus):
        return
    headlines, labels = read_headlines(options.headlines)
    share = shares(headlines, labels)
    maps = compare(two_tables(headlines, labels), share)
    if options.pictures:
        draw_maps(options.pictures, maps, share)
    vectors = Word2Vec(vector_size=SIZE, sample=1e-4, threads=1).fit(options.corpus).vectors
    result = accuracies(headlines, labels, vectors)
    check_accuracies(result)
    if options.pictures:
        draw_accuracies(options.pictures, result)


if __name__ == "__main__":
    main()
