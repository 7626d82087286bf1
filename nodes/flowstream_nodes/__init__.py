"""The built-in node types. A lazy index: a module is imported when a graph names its type."""

NODE_API = 1

CAPABILITIES = (
    "flowstream_nodes.codec.capabilities:capabilities",
    "flowstream_nodes.capture.capabilities:capabilities",
)
"""What `flowstream doctor` asks."""

NODES = {
    "test-pattern": "flowstream_nodes.synth.test_pattern:TestPattern",
    "tone": "flowstream_nodes.synth.tone:Tone",
    "file": "flowstream_nodes.file.file:File",
    "scale": "flowstream_nodes.video.scale:Scale",
    "overlay": "flowstream_nodes.video.overlay:Overlay",
    "throttle": "flowstream_nodes.video.throttle:Throttle",
    "convert": "flowstream_nodes.video.convert:Convert",
    "frame-rate": "flowstream_nodes.video.frame_rate:FrameRate",
    "resample": "flowstream_nodes.audio.resample:Resample",
    "screen": "flowstream_nodes.capture.screen:Screen",
    "camera": "flowstream_nodes.capture.camera:Camera",
    "hw-encode": "flowstream_nodes.codec.hw_encode:HwEncode",
    "opus-encode": "flowstream_nodes.codec.opus_encode:OpusEncode",
    "abr-controller": "flowstream_nodes.adapt.abr_controller:AbrController",
    "decode": "flowstream_nodes.codec.decode:Decode",
    "recorder": "flowstream_nodes.record.recorder:Recorder",
    "webrtc-out": "flowstream_nodes.webrtc.webrtc_out:WebrtcOut",
    "display": "flowstream_nodes.view.display:Display",
    "app-in": "flowstream_nodes.app.app_in:AppIn",
    "app-out": "flowstream_nodes.app.app_out:AppOut",
    "discard": "flowstream_nodes.flow.discard:Discard",
    "probe": "flowstream_nodes.flow.probe:Probe",
    "fault": "flowstream_nodes.flow.fault:Fault",
}
