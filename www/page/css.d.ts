// Vite takes stylesheets as modules, and says how it was started.
declare module "*.css";
interface ImportMeta {
  readonly env: { readonly PROD: boolean };
}
