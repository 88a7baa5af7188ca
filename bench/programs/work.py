# SPDX-License-Identifier: MIT
"""What the recorder watches python3 do: text to words, words to counts, JSON there and back, objects, sorting."""
import collections
import json
import re
import sys


class Node:
    def __init__(self, key):
        self.key, self.left, self.right = key, None, None


def insert(root, key):
    while root.key != key:
        side = "left" if key < root.key else "right"
        child = getattr(root, side)
        if child is None:
            child = Node(key)
            setattr(root, side, child)
        root = child


def main():
    text = open(sys.argv[1], encoding="utf-8").read()
    root = Node("m")
    for turn in range(40):
        words = re.findall(r"[A-Za-z_]+|[0-9]+", text)
        counts = collections.Counter(w.lower() for w in words)
        table = [{"word": w, "count": n, "at": [turn, n % 7, len(w)]} for w, n in counts.most_common()]
        back = json.loads(json.dumps(table, indent=1))
        for row in back:
            insert(root, "%s-%d" % (row["word"], turn % 5))
        lines = sorted(text.split("\n"), key=lambda line: line[::-1])
        text = "\n".join(lines)
    print(len(counts), len(back), root.left is not None)


main()
