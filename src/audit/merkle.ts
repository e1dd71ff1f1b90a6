/**
 * The Merkle tree of RFC 9162 section 2.1 over the hashes of a chain's records: SHA-256, leaves prefixed by 0x00, nodes by 0x01. Only
 * what is needed to grow it is kept: the roots of its complete subtrees, largest first.
 */
import { hash } from "node:crypto";

export interface MerkleTree {
  /** Leaves so far. */
  readonly size: number;
  /** Takes the next record's text hash (32 bytes) as the next leaf. */
  add(entry: Buffer): void;
  /** The root over all leaves, as base64url; of no leaves the hash of nothing. */
  root(): string;
}

/** An empty tree. */
export function merkleTree(): MerkleTree {
  const subtrees: { readonly height: number; readonly hash: Buffer }[] = [];
  let size = 0;
  return {
    get size() {
      return size;
    },
    add(entry) {
      let node = { height: 0, hash: digest(Buffer.concat([LEAF, entry])) };
      for (let last = subtrees.at(-1); last?.height === node.height; last = subtrees.at(-1)) {
        subtrees.pop();
        node = { height: node.height + 1, hash: joined(last.hash, node.hash) };
      }
      subtrees.push(node);
      size++;
    },
    root() {
      const hashes = subtrees.map((subtree) => subtree.hash);
      const root =
        hashes.length === 0 ? digest(Buffer.alloc(0)) : hashes.reduceRight((right, left) => joined(left, right));
      return root.toString("base64url");
    },
  };
}

const LEAF = Buffer.of(0);
const NODE = Buffer.of(1);

const joined = (left: Buffer, right: Buffer) => digest(Buffer.concat([NODE, left, right]));
const digest = (bytes: Buffer) => hash("sha256", bytes, "buffer");
