/** Pictures that go with a message: chosen, pasted or dropped, and kept as data URLs. */
import { useRef, useState } from "preact/hooks";
import { Button, Failure, bytes } from "./ui";

/** What models read. */
const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif"];
/** Of one picture: a request with a few of them stays below what a stack takes. */
const MOST_BYTES = 8_000_000;

const read = (file: File) =>
  new Promise<string>((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });

/** @throws what is wrong with one of them. */
export async function readAll(files: Iterable<File>): Promise<string[]> {
  const list = [...files];
  for (const file of list) {
    if (!KINDS.includes(file.type)) throw new Error(`${file.name} is ${file.type || "of no known kind"}; an image must be PNG, JPEG, WebP or GIF`);
    if (file.size > MOST_BYTES) throw new Error(`${file.name} has ${bytes(file.size)}; an image must have at most ${bytes(MOST_BYTES)}`);
  }
  return Promise.all(list.map(read));
}

export const Pictures = ({ list, onRemove }: { list?: string[]; onRemove?: (index: number) => void }) =>
  !list || list.length === 0 ? null : (
    <ul class="pictures" aria-label="Images">
      {list.map((url, index) => (
        <li key={index}>
          <img src={url} alt={`Image ${index + 1}`} />
          {onRemove && <Button kind="quiet" icon="close" label={`Remove image ${index + 1}`} onClick={() => onRemove(index)} />}
        </li>
      ))}
    </ul>
  );

/** What a composer does with pictures: its button, those that are there, and what was wrong with the last. */
export function usePictures(list: string[], change: (list: string[]) => void) {
  const input = useRef<HTMLInputElement>(null);
  const [error, setError] = useState<unknown>(null);
  const add = async (files: Iterable<File>) => {
    try {
      const more = await readAll(files);
      setError(null);
      change([...list, ...more]);
    } catch (error) {
      setError(error);
    }
  };
  const pasted = (event: ClipboardEvent) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return;
    event.preventDefault();
    void add(files);
  };
  const dropped = (event: DragEvent) => {
    event.preventDefault();
    void add(event.dataTransfer?.files ?? []);
  };
  return {
    pasted,
    dropped,
    button: (
      <>
        <input
          ref={input}
          type="file"
          multiple
          accept={KINDS.join(",")}
          class="visually-hidden"
          tabIndex={-1}
          aria-label="Image files"
          onChange={(event) => {
            void add([...(event.currentTarget.files ?? [])]);
            event.currentTarget.value = "";
          }}
        />
        <Button kind="quiet" icon="image" label="Add images" onClick={() => input.current?.click()} />
      </>
    ),
    shown: (list.length > 0 || Boolean(error)) && (
      <div class="composer-images">
        <Failure error={error} />
        <Pictures list={list} onRemove={(index) => change(list.filter((_, at) => at !== index))} />
      </div>
    ),
  };
}

/** A message's parts in gRPC's JSON: the text, then its pictures. */
export const parts = (text: string, images?: string[]) => [...(text ? [{ text }] : []), ...(images ?? []).map((url) => ({ image: { url } }))];
