// Compiles the TypeScript sources in the bundler itself, so that a build needs
// neither tsc nor JupyterLab's packages (JupyterLab shares those at run time).
module.exports = {
  resolve: { extensions: ['.ts', '.js'] },
  module: {
    rules: [
      {
        test: /\.ts$/,
        loader: 'builtin:swc-loader',
        options: { jsc: { parser: { syntax: 'typescript' }, target: 'es2022' } }
      }
    ]
  }
};
