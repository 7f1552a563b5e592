/** Fields of a form whose values are kept together. Knows nothing of clusters. */
import * as React from 'react';

export type Values = Readonly<Record<string, string | boolean>>;

interface IField {
  name: string;
  label: string;
  values: Values;
  set(name: string, value: string | boolean): void;
}

/** A line of text, or with `type` a number. */
export function Field({
  name,
  label,
  values,
  set,
  ...rest
}: IField & React.InputHTMLAttributes<HTMLInputElement>): React.JSX.Element {
  return (
    <label>
      <span>{label}</span>
      <input
        className="jp-mod-styled"
        name={name}
        value={String(values[name] ?? '')}
        min="0"
        step={rest.type === 'number' ? 'any' : undefined}
        spellCheck={false}
        autoComplete="off"
        onChange={({ target }) => set(name, target.value.trimStart())}
        {...rest}
      />
    </label>
  );
}

/** One of the options that are its children; `none` is what holds if none is chosen. */
export function Choice(props: IField & { none: string; children?: React.ReactNode }): React.JSX.Element {
  const { name, label, values, set, none, children } = props;
  return (
    <label>
      <span>{label}</span>
      <select
        className="jp-mod-styled"
        name={name}
        value={String(values[name] ?? '')}
        onChange={({ target }) => set(name, target.value)}
      >
        <option value="">{none}</option>
        {children}
      </select>
    </label>
  );
}

export function Check({ name, label, values, set }: IField): React.JSX.Element {
  return (
    <label className="jp-ppe-check">
      <input
        type="checkbox"
        name={name}
        checked={values[name] === true}
        onChange={({ target }) => set(name, target.checked)}
      />
      <span>{label}</span>
    </label>
  );
}
