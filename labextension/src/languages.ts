/**
 * The languages of remote cells: which cell is written in which, and how CodeMirror reads it.
 *
 * A cell magic's own line is one "meta" token; the language proper begins below it.
 * Knows nothing of notebooks.
 */
import { type Language, StreamLanguage, type StreamParser } from '@codemirror/language';
import { r } from '@codemirror/legacy-modes/mode/r';
import { shell } from '@codemirror/legacy-modes/mode/shell';

interface ICellState {
  inMagic: boolean;
  code: unknown;
}

function belowMagic(parser: StreamParser<unknown>): StreamParser<ICellState> {
  const { token, startState, copyState, indent, blankLine } = parser;
  return {
    name: parser.name,
    languageData: parser.languageData,
    tokenTable: parser.tokenTable,
    startState: unit => ({ inMagic: true, code: startState!(unit) }),
    copyState: state => ({
      inMagic: state.inMagic,
      code: copyState ? copyState(state.code) : { ...(state.code as object) }
    }),
    blankLine: (state, unit) => {
      if (!state.inMagic) {
        blankLine?.(state.code, unit);
      }
    },
    token: (stream, state) => {
      if (!state.inMagic) {
        return token(stream, state.code);
      }
      if (stream.eatSpace()) {
        return null;
      }
      stream.skipToEnd();
      state.inMagic = false;
      return 'meta';
    },
    indent: (state, textAfter, context) =>
      state.inMagic || !indent ? 0 : indent(state.code, textAfter, context)
  };
}

const R = StreamLanguage.define(belowMagic(r));
const SHELL = StreamLanguage.define(belowMagic(shell));

/** Cells without an entry, `%%remote_py` among them, keep the notebook's own language. */
const LANGUAGES: Readonly<Record<string, Language>> = {
  '%%remote_r': R,
  '%%R': R,
  '%%remote_sh': SHELL
};

/** The language that a cell's magic calls for; null for the notebook's own. */
export function languageOf(lines: Iterable<string>): Language | null {
  for (const line of lines) {
    const [word] = line.trim().split(/\s/, 1);
    if (word) {
      return Object.hasOwn(LANGUAGES, word) ? LANGUAGES[word] : null;
    }
    // IPython skips blank lines above a cell magic.
  }
  return null;
}
