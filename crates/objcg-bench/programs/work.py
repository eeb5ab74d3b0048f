"""JSON, dictionaries, strings and sorting, from a fixed seed; prints what came out as one digest."""

import hashlib
import json
import random
import re

ROUNDS = 2
RECORDS = 20000


def record(source, number):
    words = ["".join(source.choices("abcdefghij", k=source.randrange(2, 40))) for _ in range(source.randrange(1, 9))]
    return {"id": number, "words": words, "price": source.randrange(10**6) / 100, "more": {words[0]: len(words)}}


def round_of(source):
    records = [record(source, number) for number in range(RECORDS)]
    text = json.dumps(records, indent=1)
    again = json.loads(text)
    assert again == records

    by_word = {}
    for entry in again:
        for word in entry["words"]:
            by_word.setdefault(word, []).append(entry["id"])
    for word in sorted(by_word)[::3]:
        del by_word[word]

    pieces = re.split(r'"words"', text)
    longest = sorted(by_word, key=lambda word: (-len(word), word))[:1000]
    blob = bytearray()
    for piece in pieces:
        blob += piece.encode()[:100]
    return json.dumps([len(text), len(by_word), longest, hashlib.sha256(blob).hexdigest()])


source = random.Random(20240607)
digest = hashlib.sha256()
for _ in range(ROUNDS):
    digest.update(round_of(source).encode())
print(digest.hexdigest())
