/** One-time links: the one that makes the owner's account, and those with which somebody chooses a password. */
import { DrawbridgeError } from "../../core/errors.ts";
import { type Exchange, readForm, seeOther } from "../http.ts";
import { MIN_PASSWORD_LENGTH } from "../people/passwords.ts";
import type { User } from "../people/users.ts";
import { alert, field, formToken, html, showPage } from "./pages.ts";
import type { Site } from "./site.ts";

/** The group of whoever sets Drawbridge up. */
export const OWNER_GROUP = "owner";

/** `/setup/<token>`. Looking at the page does not spend the link; answering it does, once. */
export async function handleSetup(site: Site, exchange: Exchange, token: string): Promise<void> {
  const { users, browsers, report, place } = site;
  const invited = await users.invited(token);
  if (invited !== undefined) return handleInvitation(site, exchange, token, invited);
  if (!site.signIn.local || !(await users.setupTokenValid(token)) || !(await users.noneLocal())) throw spent();
  if (exchange.request.method !== "POST") return show(site, exchange, { name: "", email: "", problems: [] });

  const form = await readForm(exchange.request);
  browsers.checkForm(exchange, form, "setup");
  const name = (form.get("name") ?? "").slice(0, 256);
  const email = (form.get("email") ?? "").trim().slice(0, 256);
  const password = form.get("password") ?? "";
  const wanted = { name, email: email === "" ? undefined : email, password };
  const problems = [...users.problems(wanted)];
  if (password !== form.get("again")) problems.push("The two passwords differ.");
  if (problems.length > 0) return show(site, exchange, { name, email, problems });

  if (!(await users.spendSetupToken(token))) throw spent();
  const user = await users.create({ ...wanted, groups: [OWNER_GROUP] });
  const { source } = exchange;
  await report({ type: "user-created", user: user.id, name: user.name, groups: user.groups, source });
  await browsers.signIn(exchange, user);
  seeOther(exchange.response, `${place.prefix}/account`);
}

/** A new user's first password, or a new one of somebody who lost theirs: their sessions end. */
async function handleInvitation(site: Site, exchange: Exchange, token: string, user: User): Promise<void> {
  const { users, browsers, sessions, report, place } = site;
  const purpose = `invitation ${user.id}`;
  const show = (problems: readonly string[]) => {
    const body = html`<h1>Choose a password</h1>
<p class="lead">for <strong>${user.name}</strong> at <strong>${place.host}</strong></p>
${alert(problems)}
<form method="post">
${formToken(browsers.formToken(exchange, purpose))}
<input class="unseen" name="username" autocomplete="username" value="${user.name}" readonly tabindex="-1" aria-hidden="true">
${passwordFields(true)}
<button class="full">Keep this password</button>
</form>`;
    const status = problems.length === 0 ? 200 : 422;
    showPage(exchange.response, { title: "Choose a password", body }, { prefix: place.prefix, status });
  };
  if (exchange.request.method !== "POST") return show([]);

  const form = await readForm(exchange.request);
  browsers.checkForm(exchange, form, purpose);
  const password = form.get("password") ?? "";
  const problems = [...users.problems({ name: user.name, email: undefined, password })];
  if (password !== form.get("again")) problems.push("The two passwords differ.");
  if (problems.length > 0) return show(problems);

  const accepted = await users.acceptInvitation(token, password);
  if (accepted === undefined) throw spent();
  await sessions.endAll(user.id);
  await report({ type: "password-changed", user: user.id, source: exchange.source });
  // With local users switched off a password opens nothing, nor does the link that sets it.
  if (site.signIn.local) await browsers.signIn(exchange, accepted);
  seeOther(exchange.response, `${place.prefix}/account`);
}

interface Shown {
  readonly name: string;
  readonly email: string;
  readonly problems: readonly string[];
}

function show({ browsers, place }: Site, exchange: Exchange, { name, email, problems }: Shown): void {
  const body = html`<h1>Welcome</h1>
<p class="lead">Make the first account of <strong>${place.host}</strong>. It owns this gateway and may use everything behind it.</p>
${alert(problems)}
<form method="post">
${formToken(browsers.formToken(exchange, "setup"))}
${field({ name: "name", label: "Name", autocomplete: "username", value: name, hint: "What you will sign in with.", focus: problems.length === 0 })}
${field({ name: "email", label: "E-mail", type: "email", autocomplete: "email", value: email, required: false })}
${passwordFields(problems.length > 0)}
<button class="full">Make the account</button>
</form>`;
  const status = problems.length === 0 ? 200 : 422;
  showPage(exchange.response, { title: "Set up", body }, { prefix: place.prefix, status });
}

function passwordFields(focus: boolean) {
  return html`${field({
    name: "password",
    label: "Password",
    type: "password",
    autocomplete: "new-password",
    minLength: MIN_PASSWORD_LENGTH,
    hint: `At least ${MIN_PASSWORD_LENGTH} characters. A few words in a row do well.`,
    focus,
  })}
${field({ name: "again", label: "Password, once more", type: "password", autocomplete: "new-password", minLength: MIN_PASSWORD_LENGTH })}`;
}

function spent(): DrawbridgeError {
  return new DrawbridgeError(
    "not_found",
    "This link has been used, is older than a day, or was replaced by a newer one. Ask whoever runs this gateway for another; while there is no account, each start of Drawbridge prints one.",
  );
}
