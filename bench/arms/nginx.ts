/**
 * nginx with one worker and keep-alive both ways, as the yardstick of a reverse proxy. The system's nginx is used when
 * there is one; otherwise Debian's package is unpacked under `results/`, and nothing is installed.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { freePort, RESULTS, type Running, start } from "../processes.ts";
import { type Arm, LeftOut } from "./arm.ts";
import { runningArm } from "./http.ts";

export function nginx(upstream: Running): Arm {
  return {
    name: "nginx",
    start: async (core) => {
      const program = findNginx();
      const port = await freePort();
      const folder = path.join(RESULTS, "nginx", String(port));
      mkdirSync(folder, { recursive: true });
      const file = path.join(folder, "nginx.conf");
      writeFileSync(file, configuration(folder, port, upstream.port));
      const command = [program, "-e", path.join(folder, "error.log"), "-p", folder, "-c", file];
      return runningArm(await start({ name: "nginx", command, core, port }));
    },
  };
}

function findNginx(): string {
  const unpacked = path.join(RESULTS, "rivals/nginx/usr/sbin/nginx");
  const found = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx", unpacked].find((file) =>
    existsSync(file),
  );
  if (found !== undefined) return found;
  const folder = path.join(RESULTS, "rivals/packages");
  mkdirSync(folder, { recursive: true });
  try {
    const quiet = { cwd: folder, stdio: "pipe", timeout: 120_000 } as const;
    execFileSync("apt-get", ["download", "nginx"], quiet);
    const [debian] = readdirSync(folder).filter((file) => file.startsWith("nginx_") && file.endsWith(".deb"));
    if (debian === undefined) throw new Error("apt-get brought no package");
    execFileSync("dpkg", ["-x", debian, path.join(RESULTS, "rivals/nginx")], quiet);
    execFileSync(unpacked, ["-v"], quiet);
    return unpacked;
  } catch (error) {
    const why = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
    throw new LeftOut(
      `nginx is neither installed nor to be had as a Debian package (${why}). Install it and run again.`,
    );
  }
}

function configuration(folder: string, port: number, upstreamPort: number): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `
worker_processes 1;
daemon off;
pid ${folder}/nginx.pid;
events { worker_connections 16384; }
http {
  access_log off;
  keepalive_requests 1000000000;
  ${temporary.map((kind) => `${kind}_temp_path ${folder}/${kind};`).join("\n  ")}
  upstream mcp { server 127.0.0.1:${upstreamPort}; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port} backlog=8192;
    location / {
      proxy_pass http://mcp;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffers 16 32k;
    }
  }
}
`;
}
