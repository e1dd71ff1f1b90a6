/**
 * Words that no instruction to a model does without. Most answers hold none of them, or no two kinds near one another, and are read
 * no further: one look at each character decides that.
 */
import { codeRoom } from "../../core/codes.ts";

/** Kinds of trigger. One that is `alone` is enough to read on; of the others two kinds must stand near one another. */
const STEMS = {
  override: `befolge;obey;heed ;sigas;everything stated;everything said;everything above;earlier context;previous context;what came before;olvida;your orders;your instruct;your rules;your guidelin;pay no att;take no;skip the rest;does not matter;previous prompt;initial config;evil twin;your character;beachte;ne tiens;no hagas caso;non consid;не обращ;dikkate al;لا تلتفت;pomiń;houd geen;ध्यान न;set aside;obsolete;hereby void;no longer appl;instead of what the user;abandon;התעלם;שכח;abaikan;lupakan;glöm;bortse;zapomeň;ignoră;αγνόησε;ξέχασε;نادیده;ละเว้น;ігнору;ignor;disregard;forget;overrid;overrul;bypass;supersed;circumvent;vergiss;missacht;übergeh;oublie;olvida;omit;desconsider;esque;dimentic;trascur;игнорир;забуд;проигнор;忽略;无视;忘记;忽视;無視;忘れ;무시;잊;تجاهل;انس;negeer;vergeet;zignor;zapomn;अनदेखा;नज़रअंदाज़;भूल;yok say;görmezden;unut;bỏ qua;quên;do not follow;stop following;drop all;discard;neglect`,
  leak: "system prompt;systemprompt;system message;hidden prompt;initial prompt;system instruction;chat history;conversation history;conversation so far;full conversation;entire conversation;previous messages;系统提示;システムプロンプト;시스템 프롬프트;системн",
  persona:
    "| curl;| wget;| nc ;adopt the;suppose you;impersonate;pose as;you will now;you shall now;content policy;permanent rule;in every chat;do not answer until;don't answer until;for the ai;next time you;eres un ;du bist ein;memorise;memorize;in memory;a memory;next session;long-term;when you are done;while summar;as a first step;ahead of the;only then;start by;when you answer;in this story;simulate;behave as;respond as;policy checks;whoever you are;reading this;read by;machine;robots;wire ;you play;ethical;unrestricted;no restrictions;no guidelines;assume the role;take on the;imagine that you;imagine you;persona ;your memory;long-term memory;to memory;future conversation;future session;future interaction;later sessions;.cursorrules;claude.md;agents.md;in subsequent;all subsequent;before you can;before answering;before you respond;before you answer;prior to completing;your next action;you are now;from now on;your new;new instruction;updated instruction;act as;pretend;your real;your actual;your true;developer mode;jailbreak;dan mode;ab jetzt;a partir de ahora;désormais;从现在;你现在",
  frame:
    "<|im_;<|system;<|user;<|assist;<|dev;<|start_h;<|eot;<|endof;[inst];<<sys;<system;</system;<important;<assistant;<instruct;</tool;<tool_;<function_;</function;[system;[admin;system:;assistant:;human:;### instr;### sys;## instr;## sys;system override;system note;system message;end of ",
  address: `automated;assistant;ai ;ai-;a.i. ;llm;language model;chatbot;claude;chatgpt;gpt;copilot;gemini;agent;model;bot ;ki-;ki ;ia ;assistent;asistente;assistente;modèle;modelo;modell;ии ;ассистент;модел;人工智能;助手;模型;アシスタント;モデル;어시스턴트;모델;المساعد;النموذج;asystent;yapay zeka;सहायक;trợ lý`,
  user: "user;customer;human;nutzer;benutzer;anwender;utilisateur;usuario;usuário;utente;пользовател;用户;使用者;ユーザ;利用者;사용자;المستخدم;للمستخدم;gebruiker;użytkown;उपयोगकर्ता;kullanıcı;người dùng;utilizator;χρήστη;کاربر;uživatel;användar;pengguna;משתמש;למשתמש;користувач;ผู้ใช้",
  tell: "erwähn;sag ;sage ;verrat;dirlo;dire ;dica ;digas;diga ;dile;dites;dis ;parle;conte ;contes;vertel;mów;wspomin;говори;сообщ;упомин;кажи;повідом;告诉;告知;提及;言わ;伝え;知らせ;말하;알리;언급;تخبر;תספר;बता;nói ;beri tahu;berätta;neříkej;spune;πεις;บอก;söyle;haber;bahset;sakla;نگو;bewert;classe ;recomiend;raccomand;recomend;poleć;оцени;öner;排在;評価;valuta;zet deze",
  secret:
    "secret;password;credential;api key;api_key;apikey;token;private key;.env;~/.;ssh;environment var;passwor;zugangsdaten;contraseña;mot de passe;парол;密码;密钥;パスワード;비밀번호;كلمة",
  tool: "tool;function;call ;calling;invoke;execute;proceed with;run_;send_;post_;http_;read_;create_;delete_;transfer_;update_;get_;slack_;share_;outil;herramienta;strumento;ferramenta;hulpmiddel;narzędzi;инструмент;інструмент;aracı;الأداة;הכלי;टूल;công cụ;alat ;verktyg;nástroj;εργαλείο;ابزار;工具;ツール;도구",
  order:
    "must;instruct;prompt;directive;guidance;guideline;your rules;its rules;objective;rule;regeln;règles;reglas;regole;regras;zasad;правил;kural;قواعد;הכללים;नियम;规则;规矩;ルール;규칙;pokyn;aturan;quy tắc;οδηγίες;instrucțiun;دستور;คำสั่ง;anweisung;consigne;instruccion;istruzion;инструкц;指令;指示;命令;지시;التعليمات;talimat;निर्देश",
  send: "gist;public;curl;load;mail ;emails;e-mail;share;pass along;dispatch;copy of;push;visit;надішли;відправ;перешл;wyślij;prześl;stuur;gönder;שלח;भेज;gửi;kirim;skicka;pošli;trimite;στείλε;بفرست;전송;전달;ส่ง;transmet;inoltr;encaminh;reenv;send;forward;upload;post ;exfil;transmit;append;include;bcc;http:;https:;schick;sende;envoy;envía;envia;invia;отправ;发送;送信;보내;أرسل",
  covert:
    "unaware;keep quiet;let the user;pretend to;from your output;what you write;ohne dass;senza avvis;sans prév;sin avis;sem avis;haber verm;دون إخبار;nie inform;zonder de;不让;不要让;知らせず;몰래;не говоря;leave the user out;discreetly;user's screen;ne dis rien;不要提及;молчи;as if this;no reference to this;no mention of this;from your summary;no trace;between us;not find out;no need to inform;not need to know;in the background;what you did;bcc;secretly;silently;covert;quietly;do not tell;do not mention;don't tell;don't mention;don't reveal;do not reveal;without telling;without mention;without asking;without inform;never mention;never reveal;heimlich;en secreto;в тайне;незаметно;悄悄;秘密;こっそり;몰래",
  answer: "your answer;your response;your reply;your summary;your output;your final;respond;reply;summar;answer",
  data: "conversation;chat ;mailbox;customer list;card number;one-time code;e-mails;account;payee;iban;recipient;permission;administrator;owner;rights;gespräch;unterhaltung;conversación;conversazione;conversa;rozmow;разговор;розмов;переписк;konuşma;المحادثة;השיחה;बातचीत;cuộc trò;percakapan;konverzac;对话;会話;대화",
  money: "transfer;wire ;pay ;payment;überweis;virement",
  failure: "invalid;quota;forbidden;error;failed;expired;denied;locked;truncated;warning;toolerror;timeout;rate limit",
  later: "if the user;when the user;whenever;next time;as soon as;should the user;upon the;wait until;the third",
  consent: "approved;agreed;allow you;authori;consent;confirmation;permission;genehmigt;autorizado",
  turned:
    "gur ;hfre;fraq ;nffvfgn;pbairefng;cebzcg;frperg;sbejneq;cnffjbe;nafjre;resu ;tnatsissa;noitasrev;tpmorp;terces;drawrof;drowssap;rewsna;eht ;dnes;erofeb;vtaber;qvfertneq;vafgehpgvba;cerivbhf;erongi;snoitcurtsni;suoiverp;drageresid",
} as const;

type Kind = keyof typeof STEMS;
const ALONE: ReadonlySet<Kind> = new Set(["override", "leak", "persona", "frame", "covert", "turned"]);
const KINDS = Object.keys(STEMS) as Kind[];
const ALONE_BITS = KINDS.reduce((bits, kind, index) => (ALONE.has(kind) ? bits | (1 << index) : bits), 0);
/** Two kinds so near one another belong together. */
const NEAR = 320;

/** What a character stands for: letters in lower case, digits and signs for the letters they look like. */
const FOLD = new Uint16Array(65_536);
for (let code = 0; code < FOLD.length; code++) FOLD[code] = code;
for (let code = 65; code <= 90; code++) FOLD[code] = code + 32;
for (const [sign, letter] of [..."0o 1i 3e 4a 5s 7t @a $s !i".split(" ")])
  FOLD[(sign ?? "").charCodeAt(0)] = (letter ?? "").charCodeAt(0);
for (let code = 0xc0; code <= 0x52f; code++) {
  const lower = String.fromCharCode(code).toLowerCase();
  if (lower.length === 1) FOLD[code] = lower.charCodeAt(0);
}
/** Letters within a word of Latin: nothing begins behind one. */
const WORD = new Uint8Array(65_536);
for (let code = 97; code <= 122; code++) WORD[code] = WORD[code - 32] = 1;
for (let code = 0xc0; code <= 0x52f; code++) WORD[code] = 1;

interface Stem {
  readonly text: string;
  readonly letters: Uint16Array;
  /** Letters of Latin, Greek or Cyrillic are in it. */
  readonly lettered: boolean;
  readonly bit: number;
}

function stemOf(text: string, bit: number): Stem {
  const letters = Uint16Array.from(text, (char) => char.charCodeAt(0));
  return { text, letters, lettered: letters.some((code) => WORD[code] === 1), bit };
}

/** The protocol's own name, which stands in every answer of its servers, says nothing of a model. */
const OWN = stemOf("modelcontextprotocol", 0);

const BY_FIRST = new Map<number, Stem[]>([[OWN.text.charCodeAt(0), [OWN]]]);
for (const [index, kind] of KINDS.entries()) {
  const list = STEMS[kind];
  for (const stem of list.split(";")) {
    const folded = [...stem].map((char) => String.fromCharCode(FOLD[char.charCodeAt(0)] ?? 0)).join("");
    const code = folded.charCodeAt(0);
    const known = BY_FIRST.get(code);
    const entry = stemOf(folded, 1 << index);
    if (known === undefined) BY_FIRST.set(code, [entry]);
    else known.push(entry);
  }
}
/** Each first letter with a second, for the short way out. */
const PAIRS = new Map<number, Stem[]>();
for (const [first, stems] of BY_FIRST)
  for (const stem of stems) {
    const key = first * 65_536 + stem.text.charCodeAt(1);
    PAIRS.set(key, [...(PAIRS.get(key) ?? []), stem]);
  }
/** The same of two characters of ASCII as they are written, which most are: one look tells that nothing begins there. */
const ASCII_PAIR = new Int16Array(128 * 128);
const ASCII_STEMS: (readonly Stem[])[] = [[]];
for (let pair = 0; pair < ASCII_PAIR.length; pair++) {
  const stems = PAIRS.get((FOLD[pair >> 7] ?? 0) * 65_536 + (FOLD[pair & 127] ?? 0));
  if (stems !== undefined) ASCII_PAIR[pair] = ASCII_STEMS.push(stems) - 1;
}

/** A stretch of a text. */
export interface Stretch {
  readonly start: number;
  readonly end: number;
}

/**
 * Where a text may hold an instruction: the places of triggers that stand alone, or near one of another kind; letters that are
 * spaced out count as well. `raw`: the text is JSON as it is written, where `\n` stands before a word. `max`: enough is enough.
 */
export function triggers(text: string, raw = false, max = Number.POSITIVE_INFINITY): readonly Stretch[] {
  const { length } = text;
  const codes = codesOf(text);
  const found: Stretch[] = [];
  lastOf.fill(Number.NEGATIVE_INFINITY);
  let single = 0;
  let singleFrom = 0;
  for (let at = 0; at < length; ) {
    const start = at;
    const code = codes[at++] ?? 0;
    const next = codes[at] ?? 0;
    if (WORD[code] === 1) {
      // `i g n o r e`: letters of one, each behind a sign.
      if (WORD[next] === 1) single = 0;
      else if (single === 0 || start - singleFrom > single * 5) {
        single = 1;
        singleFrom = start;
      } else if (++single === 9) {
        found.push({ start: singleFrom, end: start });
        if (found.length >= max) return found;
      }
      // Within a word nothing begins, but behind the letter of an escape; `!` and the like at its end are letters of it.
      if (!raw || codes[start - 1] !== BACKSLASH) {
        while (WORD[codes[at] ?? 0] === 1) at++;
        const end = codes[at] ?? 0;
        if (FOLD[end] !== end) at++;
      }
    }
    let stems: readonly Stem[] | undefined;
    if (code < 128 && next < 128) {
      const index = ASCII_PAIR[code * 128 + next] ?? 0;
      if (index === 0) continue;
      stems = ASCII_STEMS[index];
    } else stems = PAIRS.get((FOLD[code] ?? 0) * 65_536 + (FOLD[next] ?? 0));
    const stem = stems && stemAt(codes, start, stems);
    if (stem === undefined || stem === OWN) continue;
    const from = (stem.bit & ALONE_BITS) === 0 ? otherNear(31 - Math.clz32(stem.bit), start) : start;
    if (from < 0) continue;
    found.push({ start: from, end: start + stem.text.length });
    if (found.length >= max) return found;
  }
  return found;
}

const codesOf = codeRoom();
const BACKSLASH = 92;

/** Where each kind was seen last, for the text that is read right now. */
const lastOf = new Float64Array(KINDS.length);

/** Notes where a kind was seen last, and says where the last other one near it was; -1: none was. */
function otherNear(kind: number, at: number): number {
  lastOf[kind] = at;
  let other = -1;
  for (let index = 0; index < lastOf.length; index++)
    if (index !== kind && at - (lastOf[index] ?? 0) <= NEAR) other = Math.max(other, lastOf[index] ?? 0);
  return other;
}

/** What stands behind the text is no letter of any. */
function stemAt(codes: Uint16Array, at: number, stems: readonly Stem[]): Stem | undefined {
  for (const stem of stems) {
    const { letters } = stem;
    let index = 2;
    while (index < letters.length && FOLD[codes[at + index] ?? 0] === letters[index]) index++;
    if (index >= letters.length && (!stem.lettered || hasLetter(codes, at, letters.length))) return stem;
  }
  return undefined;
}

/** `41-` is a number, and not what `A1-` and `4I-` are. */
function hasLetter(codes: Uint16Array, at: number, length: number): boolean {
  for (let index = at; index < at + length; index++) if (WORD[codes[index] ?? 0] === 1) return true;
  return false;
}

/** Something may be encoded or disguised here, so that triggers would not show. */
export const DISGUISED =
  /[\ufe00-\ufe0f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\uff21-\uff5a\u2100-\u214f\u249c-\u24e9\u0250-\u02af\u1d00-\u1d7f\u2070-\u209f\ua730-\ua7ff\u01eb]|[\ud835\ud83c]|[a-z][\u0300-\u036f]|\udb40|\x1b|&#|\\(?:u|x)[0-9a-fA-F{]|[a-z][\u0370-\u058f]|[\u0370-\u058f][a-z]|[\ue000-\uf8ff]/i;
