"""Which sentence means the same? Start the stack first: llama-stack run starter"""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("LLAMA_STACK_SERVER", "http://127.0.0.1:8321") + "/v1", api_key="none")

question = "How do I get my money back?"
answers = ["Refunds are paid within five days.", "Our office is in Berlin.", "The shop opens at nine."]
vectors = [item.embedding for item in client.embeddings.create(model="all-minilm-l6-v2", input=[question, *answers]).data]

# The vectors have length 1, so the dot product is the cosine.
for answer, vector in zip(answers, vectors[1:]):
    print(f"{sum(a * b for a, b in zip(vectors[0], vector)):.3f}  {answer}")
