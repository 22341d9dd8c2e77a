"""A model of your own. Listens on an address: python provider.py __ADDRESS__"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

import stubs  # noqa: F401  (makes llama_stack.v1 importable)
from llama_stack.v1 import common_pb2, inference_pb2, inference_pb2_grpc

MODEL = inference_pb2.Model(id="__NAME__", kind=inference_pb2.MODEL_KIND_CHAT, context_length=4096)


def generate(messages):
    """The model: yields its answer piece by piece. Replace it; this one says again what it was told."""
    said = "".join(part.text for part in messages[-1].parts)
    for word in f"You said: {said}".split(" "):
        yield word + " "


class Provider(inference_pb2_grpc.InferenceServicer):
    def ListModels(self, request, context):
        kind = request.kind
        wanted = kind in (inference_pb2.MODEL_KIND_UNSPECIFIED, MODEL.kind)
        return inference_pb2.ListModelsResponse(models=[MODEL] if wanted else [])

    def GetModel(self, request, context):
        if request.id != MODEL.id:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.id!r}; there is: {MODEL.id}")
        return MODEL

    def StreamChat(self, request, context):
        self.GetModel(inference_pb2.GetModelRequest(id=request.model), context)
        if not request.messages:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "messages is empty; at least one is needed")
        limit = request.sampling.max_tokens if request.sampling.HasField("max_tokens") else 1_000
        written, finish = 0, common_pb2.FINISH_REASON_STOP
        for piece in generate(request.messages):
            # A caller that has gone wants no more.
            if not context.is_active():
                return
            if written == limit:
                finish = common_pb2.FINISH_REASON_LENGTH
                break
            written += 1
            yield inference_pb2.ChatEvent(text=piece)
        # In this order: the deltas, one finish for each choice, one usage.
        yield inference_pb2.ChatEvent(finish=finish)
        read = sum(len(part.text.split()) for message in request.messages for part in message.parts)
        yield inference_pb2.ChatEvent(usage=common_pb2.Usage(prompt_tokens=read, completion_tokens=written))

    def Chat(self, request, context):
        text, choice, usage = "", inference_pb2.ChatChoice(), None
        for event in self.StreamChat(request, context):
            match event.WhichOneof("event"):
                case "text":
                    text += event.text
                case "finish":
                    choice.finish_reason = event.finish
                case "usage":
                    usage = event.usage
        choice.message.CopyFrom(common_pb2.Message(role=common_pb2.ROLE_ASSISTANT, parts=[common_pb2.Part(text=text)]))
        return inference_pb2.ChatResponse(model=request.model, choices=[choice], usage=usage)


def serve(address: str):
    # A stack sends messages of up to 64 MiB; gRPC's own 4 would refuse long conversations and many documents.
    server = grpc.server(ThreadPoolExecutor(), options=[("grpc.max_receive_message_length", 64 << 20)])
    inference_pb2_grpc.add_InferenceServicer_to_server(Provider(), server)
    port = server.add_insecure_port(address)
    server.start()
    return server, port


if __name__ == "__main__":
    server, port = serve(sys.argv[1] if len(sys.argv) > 1 else "__ADDRESS__")
    print(f"listening on port {port}", flush=True)
    server.wait_for_termination()
