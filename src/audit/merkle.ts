/**
 * The Merkle tree of RFC 9162 section 2.1 over the texts of a chain's records: SHA-256, leaves prefixed by 0x00, nodes by 0x01. Only
 * what is needed to grow it is kept: the roots of its complete subtrees, largest first.
 */
import { createHash, hash } from "node:crypto";

export interface MerkleTree {
  /** Leaves so far. */
  readonly size: number;
  /** Takes the next leaf, as `leafHash` gives it. */
  add(leaf: string): void;
  /** The root over all leaves, as base64url; of no leaves the hash of nothing. */
  root(): string;
  /** Gives back what makes the tree again what it is now. */
  mark(): () => void;
}

/** An empty tree. */
export function merkleTree(): MerkleTree {
  let subtrees: { readonly height: number; readonly hash: string }[] = [];
  let size = 0;
  return {
    get size() {
      return size;
    },
    add(leaf) {
      let node = { height: 0, hash: leaf };
      for (let last = subtrees.at(-1); last?.height === node.height; last = subtrees.at(-1)) {
        subtrees.pop();
        node = { height: node.height + 1, hash: joined(last.hash, node.hash) };
      }
      subtrees.push(node);
      size++;
    },
    root() {
      const hashes = subtrees.map((subtree) => subtree.hash);
      return hashes.length === 0 ? digest("") : hashes.reduceRight((right, left) => joined(left, right));
    },
    mark() {
      const was = { subtrees: [...subtrees], size };
      return () => {
        ({ subtrees, size } = was);
      };
    },
  };
}

/**
 * The hash of a record's text, by which the next one names it, too: SHA-256 of a zero byte and the text (RFC 9162 section 2.1.1), as
 * base64url. All hashes are texts here: one that is made as bytes costs twice as much.
 */
export function leafHash(text: string): string {
  if (text.length * 3 >= leaf.length) return digest(`\0${text}`);
  // Writing makes the text one piece, which whoever reads it next would have to do again.
  return digest(leaf.subarray(0, leaf.write(text, 1) + 1));
}

/** The same of the text's bytes. */
export function leafDigest(bytes: Buffer): string {
  if (bytes.length >= leaf.length) return createHash("sha256").update("\0").update(bytes).digest("base64url");
  bytes.copy(leaf, 1);
  return digest(leaf.subarray(0, bytes.length + 1));
}
/** 0x00 and a text: made in place, since one hash of one piece costs less than one of two. It is used at once and never handed out. */
const leaf = Buffer.alloc(1 << 16);

/** 0x01 and two hashes. It is used at once and never handed out. */
const pair = Buffer.alloc(65, 1);

function joined(left: string, right: string): string {
  pair.write(left, 1, "base64url");
  pair.write(right, 33, "base64url");
  return digest(pair);
}
const digest = (data: string | Buffer) => hash("sha256", data, "base64url");
