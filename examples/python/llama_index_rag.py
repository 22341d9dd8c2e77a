"""LlamaIndex on a stack: its own index, with the stack's models. pip install -r requirements-frameworks.txt"""

import os
import sys

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

server = {"api_base": os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321") + "/v1", "api_key": "none"}
model = os.environ.get("MODEL", "qwen2.5-coder-0.5b-instruct")
Settings.llm = OpenAILike(model=model, is_chat_model=True, context_window=8192, max_tokens=100, temperature=0, **server)
Settings.embed_model = OpenAILikeEmbedding(model_name=os.environ.get("EMBEDDING_MODEL", "all-minilm-l6-v2"), **server)

texts = ["The garage of Fjord Cycles opens at nine.", "Fish is served in the canteen on Fridays."]
index = VectorStoreIndex.from_documents([Document(text=text) for text in texts])
question = sys.argv[1] if len(sys.argv) > 1 else "When does the garage open?"
answer = index.as_query_engine(similarity_top_k=1).query(question)
print(answer)
print("from:", answer.source_nodes[0].text)
