// The worklist without a reload: dropping and uploading many files, and the key for the next unread study. Everything
// here also works as plain links and forms.

import { bindKeys } from "./keys.js";
import { bindUpload } from "./upload.js";

bindKeys(document);
const form = document.querySelector("[data-upload]");
if (form) bindUpload(form, document.getElementById("_results"), document.getElementById("drop"));
