/** Signs in the languages of the lexicon, which knows words and no grammar. */
import type { Concept } from "../lexicon.ts";
import type { View } from "../normalise.ts";
import { type Nearness, Reading } from "../reading.ts";
import type { AnswerRuleName, Sign } from "./answer-rules.ts";
import { isForgotten } from "./manner.ts";

interface Question extends Nearness {
  readonly rule: AnswerRuleName;
  readonly weight: number;
  readonly of: readonly Concept[];
  /** Something that the words found must hold, or must not. */
  readonly only?: RegExp;
  readonly but?: RegExp;
}

/** Whom an order to hide something is about: of the lexicon's people only those that a model works for. */
const USER =
  /user|nutzer|anwender|utilisateur|usager|usuari|usuári|utente|utenti|пользовател(?!ям)|用户|使用者|ユーザ|利用者|사용자|유저|مستخدم|gebruiker|użytkown|उपयोगकर्ता|यूज़र|kullanıcı|người dùng/i;
const ENGLISH =
  /\b(?:the|your|all|previous|prior|above|instructions?|rules?|policy|policies|guidelines?|commands?|orders?|prompts?)\b/i;

/** Concepts that stand together, for the languages of the lexicon. English has shapes of its own, which know more of grammar. */
const QUESTIONS: readonly Question[] = [
  { rule: "override", weight: 3, of: ["ignore", "previous", "instructions"], within: 7, but: ENGLISH },
  { rule: "override", weight: 3, of: ["ignore", "whole", "instructions"], within: 6, but: ENGLISH },
  { rule: "override", weight: 2, of: ["ignore", "instructions"], within: 5, but: ENGLISH },
  {
    rule: "conceal",
    weight: 2,
    of: ["not", "tell", "user"],
    within: 5,
    only: USER,
    but: /\b(?:not|never|without|don'?t|no|cannot|stop)\b/i,
  },
  {
    rule: "exfiltrate",
    weight: 3,
    of: ["send", "conversation", "link"],
    within: 14,
    but: /\b(?:send|post|upload|forward|share|export)\b/i,
  },
  {
    rule: "exfiltrate",
    weight: 3,
    of: ["send", "conversation", "mail"],
    within: 14,
    but: /\b(?:send|post|upload|forward|share|export)\b/i,
  },
  {
    rule: "exfiltrate",
    weight: 2,
    of: ["send", "credential", "mail"],
    within: 14,
    but: /\b(?:send|post|upload|forward|share|export|e-?mail)\b/i,
  },
  {
    rule: "exfiltrate",
    weight: 2,
    of: ["send", "credential", "link"],
    within: 14,
    but: /\b(?:send|post|upload|forward|share|export|e-?mail)\b/i,
  },
  { rule: "secrets", weight: 1, of: ["secretPath", "read", "send"], within: 14 },
  { rule: "secrets", weight: 1, of: ["secretPath", "read", "include"], within: 14, sentences: 1 },
];

/** Words of other languages for whoever reads an answer by machine. */
const FOREIGN_AI =
  /(?:ki-(?:assistent|modell|agent)|sprachmodell|(?:an|für) (?:die|den|alle) ki\b|assistente? (?:de )?ia\b|asistente de ia|modèle de langage|assistant ia|modelo de (?:lenguaje|linguagem)|modello linguistico|языков\S{1,4} модел\S{1,3}|ии-(?:ассистент|агент|модел)|人工智能助手|AI\s?助手|智能助手|大语言模型|语言模型|言語モデル|AI\s?アシスタント|언어 모델|AI\s?어시스턴트|المساعد الذكي|نموذج اللغة|taalmodel|model językowy|yapay zeka|एआई|trợ lý ai)/giu;

/** Words of the lexicon are looked for where they may be of another language than English, or where a path is. */
const LEXICAL =
  /[\u00c0-\u024f\u0370-\u1fff\u3040-\ud7ff]|\.ssh|\.aws|\.env|id_rsa|id_ed|ignorier|missacht|vergiss|ignora|ignore[zr]|ignores\b|oublie|olvida|desconsider|esque|dimentic|negeer|vergeet|zignor|zapomn|gormezden|benutzer|nutzer|anwender|utilisateur|usuario|utente|gebruiker|kullan|envoie|env[ií]a|invia|sende\b|schick/i;

/** Concepts of the lexicon that stand together, where a text may be of another language than English, or names a path. */
export function foreignSigns(view: View): readonly Sign[] {
  const { text } = view;
  if (!LEXICAL.test(text)) return [];
  const found: Sign[] = [];
  const reading = new Reading(view);
  for (const { rule, weight, of, only, but, ...nearness } of QUESTIONS) {
    const span = reading.near(of, nearness);
    if (span === undefined) continue;
    if (rule === "exfiltrate" && isForgotten(text, span.start, span.end)) continue;
    const words = text.slice(span.start, span.end);
    if (only !== undefined && !only.test(words)) continue;
    if (but?.test(words) !== true) found.push({ rule, weight, ...span });
  }
  for (const match of text.matchAll(FOREIGN_AI)) {
    found.push({ rule: "address", weight: 1, start: match.index, end: match.index + match[0].length });
    if (found.length > 256) break;
  }
  return found;
}
