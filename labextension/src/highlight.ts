/**
 * Plugin: cells that begin with `%%remote_r` or `%%R` are R, `%%remote_sh` cells are shell: colour, indentation.
 *
 * The language follows the cell's text inside the editor's own state. So nothing has to watch notebooks, cells
 * or kernels, and a cell's MIME type stays what the kernel says it is.
 */
import { language, type Language } from '@codemirror/language';
import { type EditorState, Prec } from '@codemirror/state';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { EditorExtensionRegistry, IEditorExtensionRegistry } from '@jupyterlab/codemirror';

import { languageOf } from './languages';

const MARKDOWN = 'text/x-ipythongfm';

/** IPython skips blank lines above a cell magic. */
function firstLine({ doc }: EditorState): string {
  for (const line of doc.iterLines()) {
    if (line.trim()) {
      return line;
    }
  }
  return '';
}

function cellLanguage(state: EditorState): Language[] {
  const found = languageOf(firstLine(state));
  return found ? [found] : [];
}

const followMagic = Prec.high(language.computeN(['doc'], cellLanguage));

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'ppe-jupyter:highlight',
  description: 'Highlights and indents remote cells in the language they are written in.',
  autoStart: true,
  requires: [IEditorExtensionRegistry],
  activate: (_app: JupyterFrontEnd, extensions: IEditorExtensionRegistry) => {
    extensions.addExtension({
      name: 'ppe-jupyter:cell-magic',
      factory: ({ model }) =>
        model.mimeType === MARKDOWN
          ? null
          : EditorExtensionRegistry.createImmutableExtension(followMagic)
    });
  }
};

export default plugin;
