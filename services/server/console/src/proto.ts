/** Reads `.proto` files as this project writes them: a comment stands before what it is about, one thing to a line. */

export interface Field {
  name: string;
  type: string;
  label: string;
  comment: string;
  /** The `oneof` that it is one of. */
  oneof?: string;
}
export interface Type {
  name: string;
  kind: "message" | "enum";
  comment: string;
  fields: Field[];
}
export interface Method {
  name: string;
  request: string;
  response: string;
  streams: boolean;
  sends: boolean;
  comment: string;
}
export interface Service {
  name: string;
  comment: string;
  methods: Method[];
}

export function parse(text: string): { services: Service[]; types: Map<string, Type> } {
  const services: Service[] = [];
  const types = new Map<string, Type>();
  /** What is open, innermost last. */
  const stack: ({ service: Service } | { type: Type } | { oneof: string } | { other: true })[] = [];
  let comment: string[] = [];
  let about = "";
  const said = () => {
    const text = comment.join(" ");
    comment = [];
    return text;
  };
  const type = () => stack.flatMap((open) => ("type" in open ? [open.type] : [])).at(-1);
  for (const raw of text.split("\n")) {
    const line = raw.trim();
    let match: RegExpMatchArray | null;
    if (line.startsWith("//")) {
      comment.push(line.slice(2).trim());
    } else if (!line) {
      comment = [];
    } else if (line.startsWith("package ")) {
      about = said();
    } else if ((match = line.match(/^service (\w+)/))) {
      const service: Service = { name: match[1], comment: said() || about, methods: [] };
      services.push(service);
      stack.push({ service });
    } else if ((match = line.match(/^(message|enum) (\w+) \{(\})?/))) {
      const outer = type();
      const made: Type = { name: outer ? `${outer.name}.${match[2]}` : match[2], kind: match[1] as Type["kind"], comment: said(), fields: [] };
      types.set(made.name, made);
      if (!match[3]) stack.push({ type: made });
    } else if ((match = line.match(/^oneof (\w+)/))) {
      comment = [];
      stack.push({ oneof: match[1] });
    } else if ((match = line.match(/^rpc (\w+)\((stream )?([\w.]+)\) returns \((stream )?([\w.]+)\)(;| \{)/))) {
      const service = stack.flatMap((open) => ("service" in open ? [open.service] : [])).at(-1);
      service?.methods.push({ name: match[1], request: match[3], response: match[5], sends: Boolean(match[2]), streams: Boolean(match[4]), comment: said() });
      if (match[6] === " {" && !line.endsWith("}")) stack.push({ other: true });
    } else if (line.startsWith("}")) {
      comment = [];
      stack.pop();
    } else {
      const open = stack.at(-1);
      const oneof = open && "oneof" in open ? open.oneof : undefined;
      const field = line.match(/^(repeated |optional )?(map<[^>]+>|[\w.]+) (\w+) = \d+/);
      const value = line.match(/^(\w+) = -?\d+/);
      const of = type();
      if (of && field) of.fields.push({ name: field[3], type: field[2], label: (field[1] ?? "").trim(), comment: said(), oneof });
      else if (of && value) of.fields.push({ name: value[1], type: "", label: "", comment: said() });
      else comment = [];
    }
  }
  return { services, types };
}
