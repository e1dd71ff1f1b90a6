/** Where the servers of tests are installed; `npm test` and the tests look by the same functions. */
import { existsSync, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";

type Environment = Readonly<Record<string, string | undefined>>;

/** The folder of `initdb` and `postgres`: in the search path, or where Debian keeps them, newest first. */
export function findPostgres(env: Environment = process.env): string | undefined {
  const debian = "/usr/lib/postgresql";
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [...searchPath(env), ...versions.map((version) => join(debian, version, "bin"))];
  return folders.find((folder) => existsSync(join(folder, "initdb")) && existsSync(join(folder, "postgres")));
}

export function findRedis(env: Environment = process.env): string | undefined {
  return [...searchPath(env), "/usr/bin"]
    .flatMap((folder) => [join(folder, "redis-server"), join(folder, "valkey-server")])
    .find((file) => existsSync(file));
}

/** kcat, which has a cluster of Kafka in its memory (`test.mock.num.brokers`). */
export function findKcat(env: Environment = process.env): string | undefined {
  return [...searchPath(env), "/usr/bin"].map((folder) => join(folder, "kcat")).find((file) => existsSync(file));
}

export function findNats(env: Environment = process.env): string | undefined {
  return [...searchPath(env), "/usr/sbin"]
    .map((folder) => join(folder, "nats-server"))
    .find((file) => existsSync(file));
}

function searchPath(env: Environment): string[] {
  return (env["PATH"] ?? "").split(delimiter).filter((folder) => folder !== "");
}
