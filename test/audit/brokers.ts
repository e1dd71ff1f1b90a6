/** Kafka and NATS for tests: kcat's cluster in memory, and a real nats-server with JetStream. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findKcat, findNats } from "../global/programs.ts";

export interface Broker extends AsyncDisposable {
  /** host:port */
  readonly place: string;
  /** It hangs: nothing is answered, nothing is lost. */
  freeze(): void;
  thaw(): void;
}

/** A message as a consumer sees it. */
export interface Message {
  readonly partition: number;
  readonly key: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly value: string;
}

export interface KafkaBroker extends Broker {
  /** All that is in the topic, each partition in its order. */
  messages(): Promise<readonly Message[]>;
}

/** A cluster of one broker with the topic `audit` of four partitions. What is in it is gone when it ends. */
export async function startKafka(): Promise<KafkaBroker> {
  const kcat = findKcat() ?? "";
  const mock = ["-X", "test.mock.num.brokers=1", "-X", "message.max.bytes=1000000", "-d", "mock"];
  const child = spawn(kcat, ["-P", "-b", "localhost:1", "-t", "audit", ...mock], { stdio: ["pipe", "ignore", "pipe"] });
  const place = await said(child, /bootstrap\.servers=(127\.0\.0\.1:\d+)/, /Created topic "audit"/);
  child.stderr?.resume();
  return {
    place,
    ...signals(child),
    messages: () => consume(kcat, place),
    [Symbol.asyncDispose]: () => ended(child),
  };
}

async function consume(kcat: string, place: string): Promise<readonly Message[]> {
  const words = ["-C", "-b", place, "-t", "audit", "-o", "beginning", "-e", "-q", "-J"];
  const child = spawn(kcat, words, { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  const code = await new Promise((resolve) => child.once("close", resolve));
  if (code !== 0) throw new Error(`kcat ended with ${String(code)}`);
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const { partition, key, headers, payload } = JSON.parse(line) as {
        partition: number;
        key: string;
        headers?: string[];
        payload: string;
      };
      const pairs = (headers ?? []).flatMap((name, at) => (at % 2 === 0 ? [[name, headers?.[at + 1] ?? ""]] : []));
      return { partition, key, headers: Object.fromEntries(pairs) as Record<string, string>, value: payload };
    });
}

export interface NatsServer extends Broker {
  kill(): Promise<void>;
  /** Again, with the same port and data. */
  start(): Promise<void>;
}

/** A server with JetStream, whose data survives `kill`. `authorization`: that section of its configuration. */
export async function startNats(authorization = ""): Promise<NatsServer> {
  const folder = await mkdtemp(join(tmpdir(), "drawbridge-nats-"));
  const file = join(folder, "nats.conf");
  let port = -1;
  let child: ChildProcess | undefined;
  const start = async () => {
    await writeFile(
      file,
      `host: "127.0.0.1"\nport: ${port}\njetstream { store_dir: "${folder}/data" }\n${authorization}\n`,
    );
    child = spawn(findNats() ?? "", ["-c", file], { stdio: ["ignore", "ignore", "pipe"] });
    port = Number(
      (await said(child, /Listening for client connections on 127\.0\.0\.1:(\d+)/, /Server is ready/)) || port,
    );
    child.stderr?.resume();
    await reachable(port);
  };
  const kill = async () => {
    if (child !== undefined) await ended(child);
  };
  await start();
  return {
    place: `127.0.0.1:${port}`,
    freeze: () => child?.kill("SIGSTOP"),
    thaw: () => child?.kill("SIGCONT"),
    kill,
    start,
    async [Symbol.asyncDispose]() {
      await kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function signals(child: ChildProcess) {
  return { freeze: () => void child.kill("SIGSTOP"), thaw: () => void child.kill("SIGCONT") };
}

/** What the program says, until it has said all of it; the group of the first expression. */
function said(child: ChildProcess, ...wanted: readonly [RegExp, ...RegExp[]]): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const look = (part: Buffer) => {
      text += part.toString();
      if (!wanted.every((one) => one.test(text))) return;
      child.stderr?.off("data", look);
      resolve(wanted[0].exec(text)?.[1] ?? "");
    };
    child.stderr?.on("data", look);
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${child.spawnfile} ended with ${String(code)}: ${text}`)));
  });
}

function reachable(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.destroy();
      resolve();
    });
    socket.once("error", reject);
  });
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}
